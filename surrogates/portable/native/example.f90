!> Predicts the self-test samples and compares: `./example_f model.aoti.pt2 selftest.bin [THREADS]`.
program example
  use, intrinsic :: iso_c_binding, only: c_double
  use headrace_model, only: model_t, set_threads
  implicit none
  type(model_t) :: model
  character(len=1024) :: path, self_test, words
  integer :: batch, file, threads
  real(c_double) :: samples
  real(c_double), allocatable :: first(:), second(:), expected(:), said(:)

  call get_command_argument(1, path)
  call get_command_argument(2, self_test)
  call get_command_argument(3, words)
  threads = 1
  if (len_trim(words) > 0) read (words, *) threads
  call model%open(path)
  call set_threads(threads)

  open (newunit=file, file=trim(self_test), access='stream', form='unformatted', status='old', action='read')
  read (file) samples
  batch = nint(samples)
  allocate (first(batch*product(model%input_shape(1))))
  read (file) first
  if (model%num_inputs() > 1) then
    allocate (second(batch*product(model%input_shape(2))))
    read (file) second
  end if
  allocate (expected(batch*product(model%output_shape())), said(batch*product(model%output_shape())))
  read (file) expected
  close (file)

  ! An array that was not allocated is an argument that is not there.
  call model%run_double(batch, said, first, second)
  print '(i0, a, es8.2)', batch, ' samples, relative difference ', norm2(said - expected)/norm2(expected)
  call model%close()
  if (norm2(said - expected) > 1e-6_c_double*norm2(expected)) stop 1
end program example

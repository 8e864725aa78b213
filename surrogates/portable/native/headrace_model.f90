!> Calls a model that `headrace export RUN --format aoti` wrote. See headrace_model.h for what it promises.
!>
!> Fortran counts axes the other way round: an array that headrace_model.h calls batch x channel x nx x ny is
!> `inputs(ny, nx, channel, batch)` here, with the same numbers in the same places of memory. Arrays have to be contiguous.
module headrace_model
  use, intrinsic :: iso_c_binding, only: c_char, c_double, c_f_pointer, c_float, c_int, c_int64_t, c_loc, c_null_char, &
      c_null_ptr, c_associated, c_ptr, c_size_t
  implicit none
  private
  public :: model_t, set_threads, error_text

  !> A model; it has to be closed.
  type :: model_t
    private
    type(c_ptr) :: handle = c_null_ptr
  contains
    procedure :: open => open_model
    procedure :: close => close_model
    procedure :: num_inputs
    procedure :: input_shape
    procedure :: output_shape
    procedure :: run_double
    procedure :: run_float
  end type model_t

  interface
    function c_open(path) bind(c, name="headrace_model_open") result(model)
      import :: c_char, c_ptr
      character(kind=c_char), intent(in) :: path(*)
      type(c_ptr) :: model
    end function c_open
    subroutine c_close(model) bind(c, name="headrace_model_close")
      import :: c_ptr
      type(c_ptr), value :: model
    end subroutine c_close
    function c_error() bind(c, name="headrace_model_error") result(text)
      import :: c_ptr
      type(c_ptr) :: text
    end function c_error
    function c_strlen(text) bind(c, name="strlen") result(length)
      import :: c_ptr, c_size_t
      type(c_ptr), value :: text
      integer(c_size_t) :: length
    end function c_strlen
    function c_num_inputs(model) bind(c, name="headrace_model_num_inputs") result(count)
      import :: c_ptr, c_int
      type(c_ptr), value :: model
      integer(c_int) :: count
    end function c_num_inputs
    function c_input_rank(model, place) bind(c, name="headrace_model_input_rank") result(rank)
      import :: c_ptr, c_int
      type(c_ptr), value :: model
      integer(c_int), value :: place
      integer(c_int) :: rank
    end function c_input_rank
    function c_output_rank(model, place) bind(c, name="headrace_model_output_rank") result(rank)
      import :: c_ptr, c_int
      type(c_ptr), value :: model
      integer(c_int), value :: place
      integer(c_int) :: rank
    end function c_output_rank
    function c_input_extent(model, place, axis) bind(c, name="headrace_model_input_extent") result(extent)
      import :: c_ptr, c_int, c_int64_t
      type(c_ptr), value :: model
      integer(c_int), value :: place, axis
      integer(c_int64_t) :: extent
    end function c_input_extent
    function c_output_extent(model, place, axis) bind(c, name="headrace_model_output_extent") result(extent)
      import :: c_ptr, c_int, c_int64_t
      type(c_ptr), value :: model
      integer(c_int), value :: place, axis
      integer(c_int64_t) :: extent
    end function c_output_extent
    function c_set_threads(threads) bind(c, name="headrace_model_set_threads") result(status)
      import :: c_int
      integer(c_int), value :: threads
      integer(c_int) :: status
    end function c_set_threads
    function c_run_double(model, batch, inputs, outputs) bind(c, name="headrace_model_run_double") result(status)
      import :: c_ptr, c_int, c_int64_t
      type(c_ptr), value :: model
      integer(c_int64_t), value :: batch
      type(c_ptr), intent(in) :: inputs(*), outputs(*)
      integer(c_int) :: status
    end function c_run_double
    function c_run_float(model, batch, inputs, outputs) bind(c, name="headrace_model_run_float") result(status)
      import :: c_ptr, c_int, c_int64_t
      type(c_ptr), value :: model
      integer(c_int64_t), value :: batch
      type(c_ptr), intent(in) :: inputs(*), outputs(*)
      integer(c_int) :: status
    end function c_run_float
  end interface

contains

  !> Load a model. `status` is 0 when that went well; without it a failure ends the program.
  subroutine open_model(self, path, status)
    class(model_t), intent(inout) :: self
    character(len=*), intent(in) :: path
    integer, intent(out), optional :: status
    call self%close()
    self%handle = c_open(terminated(trim(path)))
    call told(merge(0, 1, c_associated(self%handle)), status)
  end subroutine open_model

  subroutine close_model(self)
    class(model_t), intent(inout) :: self
    if (c_associated(self%handle)) call c_close(self%handle)
    self%handle = c_null_ptr
  end subroutine close_model

  !> 2 with fields and parameters, else 1; -1 when the model is not open.
  integer function num_inputs(self)
    class(model_t), intent(in) :: self
    num_inputs = c_num_inputs(self%handle)
  end function num_inputs

  !> The shape of one sample of an input (from 1 on), as Fortran counts: (..., channels), or (parameters).
  function input_shape(self, place) result(extents)
    class(model_t), intent(in) :: self
    integer, intent(in) :: place
    integer, allocatable :: extents(:)
    integer :: axis, rank
    rank = c_input_rank(self%handle, int(place - 1, c_int))
    allocate (extents(max(rank, 0)))
    do axis = 1, rank
      extents(rank + 1 - axis) = int(c_input_extent(self%handle, int(place - 1, c_int), int(axis - 1, c_int)))
    end do
  end function input_shape

  !> The shape of one sample of what comes out, as Fortran counts: (..., channels, times).
  function output_shape(self) result(extents)
    class(model_t), intent(in) :: self
    integer, allocatable :: extents(:)
    integer :: axis, rank
    rank = c_output_rank(self%handle, 0_c_int)
    allocate (extents(max(rank, 0)))
    do axis = 1, rank
      extents(rank + 1 - axis) = int(c_output_extent(self%handle, 0_c_int, int(axis - 1, c_int)))
    end do
  end function output_shape

  !> Predict for so many samples. `first` and `second` are the inputs, in their order; arrays of any rank.
  subroutine run_double(self, batch, output, first, second, status)
    class(model_t), intent(in) :: self
    integer, intent(in) :: batch
    real(c_double), intent(out), target :: output(*)
    real(c_double), intent(in), target :: first(*)
    real(c_double), intent(in), optional, target :: second(*)
    integer, intent(out), optional :: status
    type(c_ptr) :: inputs(2), outputs(1)
    inputs = c_null_ptr
    inputs(1) = c_loc(first)
    if (present(second)) inputs(2) = c_loc(second)
    outputs(1) = c_loc(output)
    call told(int(c_run_double(self%handle, int(batch, c_int64_t), inputs, outputs)), status)
  end subroutine run_double

  !> The same in single precision.
  subroutine run_float(self, batch, output, first, second, status)
    class(model_t), intent(in) :: self
    integer, intent(in) :: batch
    real(c_float), intent(out), target :: output(*)
    real(c_float), intent(in), target :: first(*)
    real(c_float), intent(in), optional, target :: second(*)
    integer, intent(out), optional :: status
    type(c_ptr) :: inputs(2), outputs(1)
    inputs = c_null_ptr
    inputs(1) = c_loc(first)
    if (present(second)) inputs(2) = c_loc(second)
    outputs(1) = c_loc(output)
    call told(int(c_run_float(self%handle, int(batch, c_int64_t), inputs, outputs)), status)
  end subroutine run_float

  !> How many threads a call may use; 0 leaves it to OpenMP.
  subroutine set_threads(threads, status)
    integer, intent(in) :: threads
    integer, intent(out), optional :: status
    call told(int(c_set_threads(int(threads, c_int))), status)
  end subroutine set_threads

  !> Why the last call of this thread that failed did so.
  function error_text() result(text)
    character(len=:), allocatable :: text
    character(kind=c_char), pointer :: letters(:)
    type(c_ptr) :: found
    integer :: place
    found = c_error()
    call c_f_pointer(found, letters, [c_strlen(found)])
    allocate (character(len=size(letters)) :: text)
    do place = 1, size(letters)
      text(place:place) = letters(place)
    end do
  end function error_text

  subroutine told(failed, status)
    integer, intent(in) :: failed
    integer, intent(out), optional :: status
    if (present(status)) then
      status = failed
    else if (failed /= 0) then
      write (*, '(a)') 'headrace_model: '//error_text()
      stop 1
    end if
  end subroutine told

  function terminated(text) result(found)
    character(len=*), intent(in) :: text
    character(kind=c_char) :: found(len(text) + 1)
    integer :: place
    do place = 1, len(text)
      found(place) = text(place:place)
    end do
    found(len(text) + 1) = c_null_char
  end function terminated

end module headrace_model

/* Predicts the self-test samples and compares: `./example_c model.aoti.pt2 selftest.bin [THREADS]`. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "headrace_model.h"

static double *numbers(size_t count) {
  double *found = malloc(count * sizeof *found);
  if (found == NULL) exit(3);
  return found;
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: %s MODEL SELFTEST [THREADS]\n", argv[0]);
    return 2;
  }
  headrace_model *model = headrace_model_open(argv[1]);
  if (model == NULL || headrace_model_set_threads(argc > 3 ? atoi(argv[3]) : 1) != 0) {
    fprintf(stderr, "%s\n", headrace_model_error());
    return 1;
  }

  FILE *file = fopen(argv[2], "rb");
  double samples;
  if (file == NULL || fread(&samples, sizeof samples, 1, file) != 1) return 2;
  int64_t batch = (int64_t)samples;

  const double *inputs[2] = {NULL, NULL};
  for (int i = 0; i < headrace_model_num_inputs(model); ++i) {
    size_t count = (size_t)(batch * headrace_model_input_size(model, i));
    double *values = numbers(count);
    if (fread(values, sizeof *values, count, file) != count) return 2;
    inputs[i] = values;
  }
  size_t count = (size_t)(batch * headrace_model_output_size(model, 0));
  double *expected = numbers(count), *said = numbers(count);
  if (fread(expected, sizeof *expected, count, file) != count) return 2;
  fclose(file);

  if (headrace_model_run_double(model, batch, inputs, &said) != 0) {
    fprintf(stderr, "%s\n", headrace_model_error());
    return 1;
  }
  double difference = 0.0, size = 0.0;
  for (size_t i = 0; i < count; ++i) {
    difference += (said[i] - expected[i]) * (said[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  printf("%d samples, relative difference %.2e\n", (int)batch, sqrt(difference / size));
  headrace_model_close(model);
  return difference <= 1e-12 * size ? 0 : 1;
}

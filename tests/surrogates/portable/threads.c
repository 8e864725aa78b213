/* Says how many threads the process has after a call that may use so many, and how many OpenMP would start for the
 * program itself before and after: `threads MODEL BATCH THREADS`. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "headrace_model.h"

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  headrace_model *model = headrace_model_open(argv[1]);
  if (model == NULL) return 1;
  int64_t batch = atoi(argv[2]);
  const float *inputs[2] = {NULL, NULL};
  for (int i = 0; i < headrace_model_num_inputs(model); ++i) {
    int64_t count = batch * headrace_model_input_size(model, i);
    float *values = malloc((size_t)count * sizeof *values);
    for (int64_t j = 0; j < count; ++j) values[j] = 1.0f;
    inputs[i] = values;
  }
  float *said = malloc((size_t)(batch * headrace_model_output_size(model, 0)) * sizeof *said);
  int before = omp_get_max_threads();
  if (headrace_model_set_threads(atoi(argv[3])) || headrace_model_run_float(model, batch, inputs, &said)) {
    fprintf(stderr, "%s\n", headrace_model_error());
    return 1;
  }
  char line[256];
  FILE *status = fopen("/proc/self/status", "r");
  while (fgets(line, sizeof line, status) != NULL)
    if (strncmp(line, "Threads:", 8) == 0) printf("%d %d %d\n", atoi(line + 8), before, omp_get_max_threads());
  return 0;
}

/* Calls a model that `headrace export RUN --format aoti` wrote, from C, C++ or (headrace_model.f90) Fortran.
 *
 * Fields and parameters are in physical units, and so is what comes out. Arrays are dense, in C's order: the last axis of
 * the grid is next to each other in memory. Of a model with fields and parameters the fields are input 0:
 *
 *     inputs       batch x channel x grid
 *     parameters   batch x parameter
 *     outputs      batch x time x channel x grid
 *
 * card.json says which channel is which field, in which unit, and what the times are. The batch may be any number from 1
 * on, and differ from call to call.
 *
 * Functions that return an int return 0 when they did what they say, and 1 when they did not; those that return a pointer
 * or a number return NULL or -1 then. headrace_model_error() says why. No C++ exception leaves this library.
 *
 * A model may be shared between threads; its calls wait for each other. Open it once for each thread to run them at the
 * same time.
 */
#ifndef HEADRACE_MODEL_H
#define HEADRACE_MODEL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct headrace_model headrace_model;

/* Loads a model; takes about a second the first time. Close it with headrace_model_close. */
headrace_model *headrace_model_open(const char *path);
void headrace_model_close(headrace_model *model);

/* Why the last function of this thread that failed did so; an empty text before any has. */
const char *headrace_model_error(void);

/* How many inputs and outputs it has, and their names ("inputs", "parameters", "outputs"). */
int headrace_model_num_inputs(const headrace_model *model);
int headrace_model_num_outputs(const headrace_model *model);
const char *headrace_model_input_name(const headrace_model *model, int input);
const char *headrace_model_output_name(const headrace_model *model, int output);

/* The axes that one sample has, the points along each, and how many numbers that makes. */
int headrace_model_input_rank(const headrace_model *model, int input);
int headrace_model_output_rank(const headrace_model *model, int output);
int64_t headrace_model_input_extent(const headrace_model *model, int input, int axis);
int64_t headrace_model_output_extent(const headrace_model *model, int output, int axis);
int64_t headrace_model_input_size(const headrace_model *model, int input);
int64_t headrace_model_output_size(const headrace_model *model, int output);

/* 1 when the model works in double precision, 0 when in single. Both functions below work on both. */
int headrace_model_is_double(const headrace_model *model);

/* How many threads a call may use, of all models of this process; 0 leaves it to OpenMP (OMP_NUM_THREADS), which is how
 * it starts. What the caller has set for its own OpenMP regions is as before after each call. */
int headrace_model_set_threads(int threads);

/* Predicts. inputs[i] points to batch x input_size(i) numbers, outputs[i] to room for batch x output_size(i). */
int headrace_model_run_double(headrace_model *model, int64_t batch, const double *const *inputs, double *const *outputs);
int headrace_model_run_float(headrace_model *model, int64_t batch, const float *const *inputs, float *const *outputs);

#ifdef __cplusplus
}
#endif

#endif

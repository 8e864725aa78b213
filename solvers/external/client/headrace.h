/* headrace.h - Headrace's client for solvers in C and C++: three calls, one header, nothing to link.

       headrace_run run = HEADRACE_RUN;
       while (headrace_init(&run)) {
           double viscosity = headrace_parameter(&run, "viscosity");
           ... solve, drawing whatever is random from run.seed ...
           headrace_send(&run, "velocity", 0, u, num_values);
           headrace_finalize(&run);
       }
       return run.error;

   With the protocol `files` the loop is gone through once, with `pipe` until Headrace has no more requests; the program
   is the same. C99 or C++11, the standard library only. Every call that fails says why on standard error, returns
   something other than 0 and sets run.error; headrace_finalize then reports the sample as failed. So a program may
   leave all checks to the end, and `return run.error` from main.

   Standard output belongs to Headrace with `pipe`: whole lines of talk are fine, a JSON object with an "index" is not.
   MPI: call it on rank 0 and broadcast what the others need.

   SPDX-License-Identifier: Apache-2.0 */

#ifndef HEADRACE_H
#define HEADRACE_H

#include <ctype.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADRACE_MAX_AXES 4
#define HEADRACE_MAX_NAME 64
#define HEADRACE_MAX_PATH 4096

typedef struct {
    char name[HEADRACE_MAX_NAME];
    double value;
} headrace_value;

typedef struct {
    char name[HEADRACE_MAX_NAME];
    int components;
    char *sent; /* for each time, whether it was sent */
} headrace_field;

typedef struct {
    int error;                         /* not 0 after a call that failed */
    char folder[HEADRACE_MAX_PATH];    /* for whatever the program writes; it is removed afterwards */
    char split[16], level[256];        /* train, validation or test; the difficulty level */
    long long index;                   /* which sample it is */
    long long seed;                    /* 0 <= seed < 2^63: the only source of randomness that a sample may have */
    int num_axes;                      /* of the grid */
    long shape[HEADRACE_MAX_AXES];     /* points per axis */
    double extent[HEADRACE_MAX_AXES];  /* length of each axis */
    int periodic[HEADRACE_MAX_AXES];   /* whether each axis wraps around */
    int cells;                         /* 1: points are centres of cells; 0: both ends of an axis are points */
    size_t num_points;                 /* of the whole grid */
    int num_times;                     /* times to send outputs at */
    double *times;
    int num_parameters;
    headrace_value *parameters;
    int num_fields;                    /* fields to send */
    headrace_field *fields;
    double relative_residual;          /* set it before headrace_finalize if you know it; NaN: not known */
    long long num_iterations;          /* the same; -1: not known */
    int is_open, was_served;           /* private */
    char message[512];
} headrace_run;

#ifdef __cplusplus
#define HEADRACE_RUN {}
#else
#define HEADRACE_RUN {0}
#endif

/* The next request: 1, or 0 when there is none or it cannot be read (run->error tells which). What was not finalized
   until then has failed. */
static inline int headrace_init(headrace_run *run);

/* A parameter by its name; NaN and an error when there is none. */
static inline double headrace_parameter(headrace_run *run, const char *name);

/* Hand over a field at one time: components x points values, component by component, the last axis fastest. `time` counts
   from 0 and is 0 for an input or a steady field. 0 when all is well. */
static inline int headrace_send(headrace_run *run, const char *name, int time, const double *values, size_t num_values);

/* Say that the sample is whole. 0 when all is well. */
static inline int headrace_finalize(headrace_run *run);

/* Say that the sample cannot be had, instead of headrace_finalize; the reason is kept in Headrace's ledger. */
static inline int headrace_fail(headrace_run *run, const char *reason);

/* ---- what follows is how it is done ---- */

static inline int headrace_is_pipe(void) {
    const char *protocol = getenv("HEADRACE_PROTOCOL");
    return protocol != NULL && strcmp(protocol, "pipe") == 0;
}

static inline int headrace_error(headrace_run *run, const char *what, const char *which) {
    fprintf(stderr, "headrace: %s%s\n", what, which);
    if (run->error == 0) snprintf(run->message, sizeof run->message, "%.200s%.200s", what, which);
    run->error = 1;
    return -1;
}

static inline void headrace_clear(headrace_run *run) {
    int i;
    for (i = 0; i < run->num_fields; i++) free(run->fields[i].sent);
    free(run->fields);
    free(run->parameters);
    free(run->times);
    run->fields = NULL;
    run->parameters = NULL;
    run->times = NULL;
    run->num_fields = run->num_parameters = run->num_times = run->num_axes = run->is_open = 0;
}

/* The folder of a request line: it is the first value, {"folder": "...", and JSON escapes quotes and backslashes. */
static inline int headrace_read_line(headrace_run *run) {
    static const char start[] = "{\"folder\": \"";
    size_t matched = 0, length = 0;
    int c, escaped = 0, inside = 1;
    while ((c = getchar()) != EOF && c != '\n') {
        if (matched < sizeof start - 1) {
            if (c != start[matched++]) return headrace_error(run, "a request does not begin with its folder", "");
        } else if (inside && !escaped && c == '\\') {
            escaped = 1;
        } else if (inside && !escaped && c == '"') {
            inside = 0;
        } else if (inside) {
            if (length + 1 >= sizeof run->folder) return headrace_error(run, "the folder's path is too long", "");
            run->folder[length++] = (char)c;
            escaped = 0;
        }
    }
    run->folder[length] = '\0';
    return length > 0;
}

static inline void *headrace_grown(headrace_run *run, void *array, int count, size_t size) {
    void *larger = realloc(array, (size_t)(count + 1) * size);
    if (larger == NULL) {
        headrace_error(run, "no memory left", "");
        return array;
    }
    memset((char *)larger + (size_t)count * size, 0, size);
    return larger;
}

static inline void headrace_read_entry(headrace_run *run, char *line) {
    char *value = strchr(line, ' ');
    long points;
    double length;
    int wraps, number;
    char name[HEADRACE_MAX_NAME];
    line[strcspn(line, "\r\n")] = '\0';
    if (value == NULL) return;
    *value++ = '\0';
    if (strcmp(line, "headrace") == 0) {
        if (strcmp(value, "1") != 0) headrace_error(run, "this client reads requests of version 1, not ", value);
    } else if (strcmp(line, "index") == 0) {
        run->index = strtoll(value, NULL, 10);
    } else if (strcmp(line, "seed") == 0) {
        run->seed = strtoll(value, NULL, 10);
    } else if (strcmp(line, "split") == 0) {
        snprintf(run->split, sizeof run->split, "%.15s", value);
    } else if (strcmp(line, "level") == 0) {
        snprintf(run->level, sizeof run->level, "%.255s", value);
    } else if (strcmp(line, "location") == 0) {
        run->cells = strcmp(value, "cells") == 0;
    } else if (strcmp(line, "axis") == 0 && run->num_axes < HEADRACE_MAX_AXES) {
        if (sscanf(value, "%ld %lf %d", &points, &length, &wraps) == 3) {
            run->shape[run->num_axes] = points;
            run->extent[run->num_axes] = length;
            run->periodic[run->num_axes++] = wraps;
            run->num_points *= (size_t)points;
        }
    } else if (strcmp(line, "time") == 0) {
        run->times = (double *)headrace_grown(run, run->times, run->num_times, sizeof *run->times);
        if (run->error == 0) run->times[run->num_times++] = strtod(value, NULL);
    } else if (strcmp(line, "parameter") == 0 && sscanf(value, "%63s %lf", name, &length) == 2) {
        run->parameters =
            (headrace_value *)headrace_grown(run, run->parameters, run->num_parameters, sizeof *run->parameters);
        if (run->error == 0) {
            memcpy(run->parameters[run->num_parameters].name, name, sizeof name);
            run->parameters[run->num_parameters++].value = length;
        }
    } else if ((strcmp(line, "input") == 0 || strcmp(line, "output") == 0) &&
               sscanf(value, "%63s %d", name, &number) == 2) {
        run->fields = (headrace_field *)headrace_grown(run, run->fields, run->num_fields, sizeof *run->fields);
        if (run->error == 0) {
            memcpy(run->fields[run->num_fields].name, name, sizeof name);
            run->fields[run->num_fields++].components = number;
        }
    }
}

static inline int headrace_init(headrace_run *run) {
    char path[HEADRACE_MAX_PATH + 32], line[1024];
    const char *folder;
    FILE *file;
    int i;
    if (run->is_open) headrace_fail(run, "headrace_init was called again before headrace_finalize");
    headrace_clear(run);
    if (headrace_is_pipe()) {
        run->error = 0; /* that of the sample before, which was told */
        if (headrace_read_line(run) <= 0) return 0;
    } else {
        if (run->was_served) return 0;
        run->error = 0;
        folder = getenv("HEADRACE_FOLDER");
        if (folder == NULL || strlen(folder) >= sizeof run->folder) {
            headrace_error(run, "HEADRACE_FOLDER is not set: to try a program without Headrace, let it name a folder", "");
            return 0;
        }
        strcpy(run->folder, folder);
    }
    run->was_served = 1;
    run->num_points = 1;
    run->relative_residual = NAN;
    run->num_iterations = -1;
    snprintf(path, sizeof path, "%s/request.txt", run->folder);
    file = fopen(path, "r");
    if (file == NULL) {
        headrace_error(run, "cannot read ", path);
        return 0;
    }
    while (fgets(line, sizeof line, file) != NULL) headrace_read_entry(run, line);
    fclose(file);
    for (i = 0; i < run->num_fields && run->error == 0; i++) {
        run->fields[i].sent = (char *)calloc((size_t)run->num_times, 1);
        if (run->fields[i].sent == NULL) headrace_error(run, "no memory left", "");
    }
    run->is_open = run->error == 0;
    return run->is_open;
}

static inline double headrace_parameter(headrace_run *run, const char *name) {
    int i;
    for (i = 0; i < run->num_parameters; i++)
        if (strcmp(run->parameters[i].name, name) == 0) return run->parameters[i].value;
    headrace_error(run, "the recipe has no parameter ", name);
    return NAN;
}

/* NumPy's file format, version 1.0: magic, version, length of the header, header, values. */
static inline int headrace_write_npy(FILE *file, const headrace_run *run, int components, const double *values,
                                     size_t num_values) {
    const uint16_t one = 1;
    const char order = *(const unsigned char *)&one == 1 ? '<' : '>';
    char header[512];
    int length, i;
    length = snprintf(header, sizeof header, "{'descr': '%cf8', 'fortran_order': False, 'shape': (%d,", order, components);
    for (i = 0; i < run->num_axes; i++)
        length += snprintf(header + length, sizeof header - (size_t)length, " %ld,", run->shape[i]);
    length += snprintf(header + length, sizeof header - (size_t)length, "), }");
    while ((10 + length + 1) % 64 != 0) header[length++] = ' ';
    header[length++] = '\n';
    return fwrite("\x93NUMPY\x01\x00", 1, 8, file) == 8 && fputc(length & 255, file) != EOF &&
           fputc(length >> 8, file) != EOF && fwrite(header, 1, (size_t)length, file) == (size_t)length &&
           fwrite(values, sizeof *values, num_values, file) == num_values;
}

static inline int headrace_send(headrace_run *run, const char *name, int time, const double *values, size_t num_values) {
    char draft[HEADRACE_MAX_PATH + 2 * HEADRACE_MAX_NAME], path[HEADRACE_MAX_PATH + 2 * HEADRACE_MAX_NAME];
    headrace_field *field = NULL;
    FILE *file;
    int i, written;
    if (!run->is_open) return headrace_error(run, "headrace_send was called without headrace_init: ", name);
    for (i = 0; i < run->num_fields; i++)
        if (strcmp(run->fields[i].name, name) == 0) field = &run->fields[i];
    if (field == NULL) return headrace_error(run, "the recipe has no field to send that is called ", name);
    if (time < 0 || time >= run->num_times) {
        snprintf(draft, sizeof draft, "time is %d, expected 0 to %d: ", time, run->num_times - 1);
        return headrace_error(run, draft, name);
    }
    if (num_values != run->num_points * (size_t)field->components) {
        snprintf(draft, sizeof draft, "%lu values, expected %d x %lu: ", (unsigned long)num_values, field->components,
                 (unsigned long)run->num_points);
        return headrace_error(run, draft, name);
    }
    snprintf(draft, sizeof draft, "%s/.%s.%d.npy.draft", run->folder, field->name, time);
    snprintf(path, sizeof path, "%s/%s.%d.npy", run->folder, field->name, time);
    file = fopen(draft, "wb");
    if (file == NULL) return headrace_error(run, "cannot write ", draft);
    written = headrace_write_npy(file, run, field->components, values, num_values);
    if (fclose(file) != 0 || !written || rename(draft, path) != 0) return headrace_error(run, "cannot write ", path);
    field->sent[time] = 1;
    return 0;
}

static inline void headrace_write_answer(FILE *file, const headrace_run *run, const char *reason) {
    const char *between = "";
    int i, time;
    fprintf(file, "{\"index\": %lld, \"sent\": [", run->index);
    for (i = 0; i < run->num_fields; i++)
        for (time = 0; time < run->num_times; time++)
            if (run->fields[i].sent[time]) {
                fprintf(file, "%s\"%s.%d\"", between, run->fields[i].name, time);
                between = ", ";
            }
    fprintf(file, "]");
    if (reason != NULL) {
        fprintf(file, ", \"error\": \"");
        for (; *reason != '\0'; reason++) fputc(strchr("\"\\", *reason) || iscntrl((unsigned char)*reason) ? ' ' : *reason, file);
        fprintf(file, "\"");
    } else {
        if (isfinite(run->relative_residual)) fprintf(file, ", \"relative_residual\": %.17g", run->relative_residual);
        if (run->num_iterations >= 0) fprintf(file, ", \"num_iterations\": %lld", run->num_iterations);
    }
    fprintf(file, "}\n");
}

static inline int headrace_end(headrace_run *run, const char *reason) {
    char draft[HEADRACE_MAX_PATH + 32], path[HEADRACE_MAX_PATH + 32];
    FILE *file;
    if (!run->is_open) return headrace_error(run, "headrace_finalize was called without headrace_init", "");
    run->is_open = 0;
    if (headrace_is_pipe()) {
        printf("\n"); /* on a line of its own, whatever the program has printed */
        headrace_write_answer(stdout, run, reason);
        return fflush(stdout) == 0 ? 0 : headrace_error(run, "cannot answer: standard output is closed", "");
    }
    snprintf(draft, sizeof draft, "%s/.answer.json.draft", run->folder);
    snprintf(path, sizeof path, "%s/answer.json", run->folder);
    file = fopen(draft, "w");
    if (file == NULL) return headrace_error(run, "cannot write ", draft);
    headrace_write_answer(file, run, reason);
    if (fclose(file) != 0 || rename(draft, path) != 0) return headrace_error(run, "cannot write ", path);
    return 0;
}

static inline int headrace_finalize(headrace_run *run) {
    if (run->error != 0) {
        headrace_end(run, run->message);
        return -1;
    }
    return headrace_end(run, NULL);
}

static inline int headrace_fail(headrace_run *run, const char *reason) { return headrace_end(run, reason); }

#endif

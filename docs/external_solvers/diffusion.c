/* Advection and diffusion on a periodic line of length 1, u_t + c u_x = nu u_xx, from u(x, 0) = sin(2 pi (x - shift)).

   Central differences in space, the classical Runge-Kutta method in time: dt keeps both c dt / h and nu dt / h^2 within
   its region of stability. The exact solution is exp(-4 pi^2 nu t) sin(2 pi (x - shift - c t)).

   cc -std=c99 -O2 -I"$(python -m headrace.solvers.external --include)" diffusion.c -lm -o diffusion */

#include "headrace.h"

static const double TWO_PI = 6.28318530717958647692;

static void rate(const double *u, double *du, long n, double h, double c, double nu) {
    for (long i = 0; i < n; i++) {
        double left = u[(i + n - 1) % n], right = u[(i + 1) % n];
        du[i] = -c * (right - left) / (2.0 * h) + nu * (right - 2.0 * u[i] + left) / (h * h);
    }
}

static void step(double *u, double *work, long n, double h, double c, double nu, double dt) {
    static const double weight[4] = {1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0}, part[4] = {0.0, 0.5, 0.5, 1.0};
    double *k = work, *v = work + n, *sum = work + 2 * n;
    for (long i = 0; i < n; i++) k[i] = sum[i] = 0.0;
    for (int stage = 0; stage < 4; stage++) {
        for (long i = 0; i < n; i++) v[i] = u[i] + part[stage] * dt * k[i];
        rate(v, k, n, h, c, nu);
        for (long i = 0; i < n; i++) sum[i] += weight[stage] * k[i];
    }
    for (long i = 0; i < n; i++) u[i] += dt * sum[i];
}

int main(void) {
    headrace_run run = HEADRACE_RUN;
    while (headrace_init(&run)) {
        double c = headrace_parameter(&run, "velocity"), nu = headrace_parameter(&run, "viscosity");
        long n = run.shape[0];
        double h = run.extent[0] / (double)n, time = 0.0;
        double shift = (double)(run.seed % 1000) / 1000.0; /* random, and the same whenever the sample is made again */
        double *u = malloc(4 * (size_t)n * sizeof *u);
        if (u == NULL) return 1;
        for (long i = 0; i < n; i++) u[i] = sin(TWO_PI * ((double)i * h - shift));
        headrace_send(&run, "initial", 0, u, (size_t)n);
        for (int output = 0; output < run.num_times; output++) {
            double limit = 0.5 / (fabs(c) / h + 2.0 * nu / (h * h)), interval = run.times[output] - time;
            long num_steps = (long)ceil(interval / limit);
            for (long i = 0; i < num_steps; i++) step(u, u + n, n, h, c, nu, interval / (double)num_steps);
            time = run.times[output];
            headrace_send(&run, "concentration", output, u, (size_t)n);
        }
        free(u);
        headrace_finalize(&run);
    }
    return run.error;
}

"""The part of navier_stokes_steps.py that runs in an environment of its own, which has exponax and no Headrace.

Reads one JSON object a line, answers with one a line. A case names a file with `start` "batch x y" and `viscosities`,
and gets ready, compiled and with its end in a second file; an empty object runs it once, and is answered with the time.
"""

import json
import os
import sys
import time

# Set before XLA starts: one thread in all of its pools.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import equinox as eqx
import exponax
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)


def prepared(case: dict) -> tuple:
    """A compiled function, and what it is called with."""
    with np.load(case["file"]) as arrays:
        start, viscosities = jnp.asarray(arrays["start"]), jnp.asarray(arrays["viscosities"])
    n = start.shape[-1]

    def stepper(viscosity):
        return exponax.stepper.NavierStokesVorticity(
            2,
            case["length"],
            n,
            case["step"],
            diffusivity=viscosity,
            # Its stream function has the other sign: its vortices turn the other way.
            vorticity_convection_scale=-1.0,
            order=4,
            # It keeps the wave numbers up to fraction * n / 2 - 1.
            dealiasing_fraction=(case["largest_wave"] + 1) / (n // 2),
            num_circle_points=32,
        )

    # Coefficients are made here, outside of what is timed.
    steppers = eqx.filter_vmap(stepper)(viscosities)

    @eqx.filter_jit
    def run(steppers, fields):
        w = jnp.fft.rfft2(fields)[:, None]
        one = eqx.filter_vmap(lambda stepper, spectrum: stepper.step_fourier(spectrum))
        w = jax.lax.fori_loop(0, case["steps"], lambda _, spectra: one(steppers, spectra), w)
        return jnp.fft.irfft2(w[:, 0], s=(n, n))

    np.save(case["end"], np.asarray(run(steppers, start)))
    return run, steppers, start


def main() -> None:
    """Answer until the input ends."""
    versions = {"exponax": exponax.__version__, "jax": jax.__version__}
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        given = json.loads(line)
        if given:
            run, steppers, start = prepared(given)
            print(json.dumps({"ready": True}), flush=True)
            continue
        began = time.process_time()
        run(steppers, start).block_until_ready()
        print(json.dumps({"seconds": time.process_time() - began}), flush=True)


if __name__ == "__main__":
    main()

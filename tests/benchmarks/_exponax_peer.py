"""The part of navier_stokes_steps.py and one_dimension.py that runs in an environment of its own, without Headrace.

Reads one JSON object a line, answers with one a line. A case names an equation and a file with `start`
"batch components *grid" and its numbers, and gets ready, compiled and with its end in a second file; an empty object
runs it once, and is answered with the time.
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


def stepper_of(case: dict, dim: int, n: int, numbers: dict):
    """An equation of exponax with the numbers of one sample, in the form that it takes least time for."""
    common = {
        "order": case["order"],
        # It keeps the wave numbers up to fraction * n / 2 - 1.
        "dealiasing_fraction": (case["largest_wave"] + 1) / (n // 2),
        "num_circle_points": 32,
    }
    grid = (dim, case["length"], n, case["step"])
    square = {"single_channel": True, "conservative": True}
    match case["equation"]:
        case "navier_stokes":
            # Its stream function has the other sign: its vortices turn the other way.
            return exponax.stepper.NavierStokesVorticity(
                *grid, diffusivity=numbers["viscosity"], vorticity_convection_scale=-1.0, **common
            )
        case "burgers":
            return exponax.stepper.Burgers(*grid, diffusivity=numbers["viscosity"], **square, **common)
        case "kuramoto_sivashinsky":
            return exponax.stepper.KuramotoSivashinskyConservative(
                *grid, fourth_order_scale=numbers["viscosity"], **square, **common
            )
        case "korteweg_de_vries":
            return exponax.stepper.KortewegDeVries(
                *grid,
                convection_scale=6.0,
                dispersivity=numbers["dispersion"] ** 2,
                hyper_diffusivity=0.0,
                **square,
                **common,
            )
        case "gray_scott":
            return exponax.stepper.reaction.GrayScott(
                *grid, feed_rate=numbers["feed"], kill_rate=numbers["kill"], **common
            )
    raise ValueError(case["equation"])


def prepared(case: dict) -> tuple:
    """A compiled function, and what it is called with."""
    with np.load(case["file"]) as arrays:
        numbers = {name: jnp.asarray(arrays[name]) for name in arrays}
    start = numbers.pop("start")
    dim, n = start.ndim - 2, start.shape[-1]
    axes = tuple(range(-dim, 0))

    # Coefficients are made here, outside of what is timed.
    steppers = eqx.filter_vmap(lambda numbers: stepper_of(case, dim, n, numbers))(numbers)

    @eqx.filter_jit
    def run(steppers, fields):
        w = jnp.fft.rfftn(fields, axes=axes)
        one = eqx.filter_vmap(lambda stepper, spectrum: stepper.step_fourier(spectrum))
        w = jax.lax.fori_loop(0, case["steps"], lambda _, spectra: one(steppers, spectra), w)
        return jnp.fft.irfftn(w, s=(n,) * dim, axes=axes)

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

"""Does recycling a Krylov subspace generate data up to 13.9 times faster, as published, and faster than what?

The claim: "Accelerating Data Generation for Neural Operators via Krylov Subspace Recycling" (SKR; Wang et al., ICLR
2024, arXiv 2401.09516): sort the systems, solve them in turn by GCRO-DR(40, 20) in place of GMRES(40). Rebuilt here are
the systems of its Darcy and Helmholtz families as its public repository makes them (n = 100 x 100 unknowns) and, with
the same coefficient fields, the equation that the paper states. Nothing is copied; the fields are drawn anew.

The coefficient: a = exp(g), g periodic and Gaussian with covariance σ² (-Δ + τ²)^-α, α = 2.5, τ = 7, σ = τ^(α - 1), on
102 x 102 points, in single precision; the standard deviation of g is only 0.17. The operators:

* published darcy: the matrix of the repository. Row p is 4 aₚ uₚ minus a u of the four neighbours: -Δ(a u), not
  -∇·(a ∇u). Its entries towards the previous grid line look their coefficient up two cells too far (two values too many
  are given to `scipy.sparse.diags`, which keeps the first ones in silence).
* published helmholtz: the same minus h² k² on the diagonal, k uniform in (0, 1): at most 1e-4, beside 4 a.
* intended: -Δ(a u), without that slip.
* correct: -∇·(a ∇u) = 1 by finite volumes with harmonic means, as Headrace's Darcy.
* correct, unit variance: the same with g divided by its expected standard deviation.

Every method solves to a true relative residual of 1e-8, recomputed from the matrix, or stops at 10000 products, the
published limit. GMRES keeps nothing from system to system, so a few systems tell its cost (`--baseline`); the first
system of a sequence, for which nothing is recycled yet, does not count in any row. Process CPU time of set-up and
solve, matrices given, one thread, the median over the systems.

    python tests/benchmarks/skr.py [--samples 9] [--baseline 3] [--size 100] [--figure docs/benchmarks/skr.svg]

The last line is one JSON object.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_variable] = "1"

# ruff: noqa: E402  (libraries read the number of threads when they are imported)
import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg
from _machine import ran_on

from headrace.solvers import (
    GCRODR,
    AbstractSolver,
    DiffusionOperator,
    Direct,
    LinearSystem,
    Multigrid,
    Solution,
    SolveStatus,
)
from headrace.solvers.sequences.sequence import order_of_systems
from headrace.solvers.sequences.sorting import Order
from headrace.solvers.systems.verified import solve_verified

RTOL = 1e-8
LIMIT = 10_000
ALPHA, TAU = 2.5, 7.0
# Cells by which the published lower diagonal is off.
SLIP = 2


def gaussian_field(rng: np.random.Generator, n: int) -> np.ndarray:
    """A periodic Gaussian field with covariance σ² (-Δ + τ²)^-α and without a mean."""
    amplitude = _amplitude(n)
    coefficients = rng.standard_normal((n, n)) + 1j * rng.standard_normal((n, n))
    return np.fft.ifft2(n * n * amplitude * coefficients).real.astype(np.float32).astype(np.float64)


def _amplitude(n: int) -> np.ndarray:
    k = 2.0 * np.pi * np.fft.fftfreq(n, 1.0 / n)
    amplitude = TAU ** (ALPHA - 1.0) * (k[:, None] ** 2 + k[None, :] ** 2 + TAU**2) ** (-ALPHA / 2.0)
    amplitude[0, 0] = 0.0
    return amplitude


def product_laplacian(a: np.ndarray, slip: int, shift: float = 0.0) -> sparse.csr_array:
    """-h² Δ(a u) - shift u with u = 0 on the boundary, the points beyond which `a` covers too.

    Args:
        a: the coefficient at the points, those around the unknowns included.
        slip: how many cells too far the entries towards the previous line look up their coefficient.
        shift: what is subtracted from the diagonal.
    """
    inner = a[1:-1, 1:-1]
    s = inner.shape[0]
    n = s * s
    next_point, point_before = a[1:-1, 2:].copy(), a[1:-1, :-2].copy()
    next_point[:, -1] = point_before[:, 0] = 0.0  # the ends of a line are no neighbours
    line_before, next_line = a[:-2, 1:-1].ravel(), a[2:, 1:-1].ravel()
    return sparse.diags_array(
        [
            4.0 * inner.ravel() - shift,
            -next_point.ravel()[: n - 1],
            -point_before.ravel()[1:],
            -next_line[: n - s],
            -line_before[s - slip : n - slip],
        ],
        offsets=[0, 1, -1, s, -s],
        format="csr",
    )


def finite_volumes(a: np.ndarray, rhs: np.ndarray) -> LinearSystem:
    """-∇·(a ∇u) with harmonic means on the faces."""

    def harmonic(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return 2.0 * one * other / (one + other)

    operator = DiffusionOperator(
        conductances=(harmonic(a[:-1, 1:-1], a[1:, 1:-1]), harmonic(a[1:-1, :-1], a[1:-1, 1:]))
    )
    return LinearSystem.from_operator(operator, rhs, feature=a)


def families(num_systems: int, size: int) -> dict[str, list[LinearSystem]]:
    """The sequences, all from the same Gaussian fields."""
    rng = np.random.default_rng(2024)
    fields = [gaussian_field(rng, size + 2) for _ in range(num_systems)]
    wave_numbers = rng.uniform(0.0, 1.0, num_systems)
    spread = float(np.sqrt(np.sum(_amplitude(size + 2) ** 2)))
    step = 1.0 / (size - 1)
    rhs = np.full(size * size, step**2)

    def by_matrix(slip: int, shifts: np.ndarray) -> list[LinearSystem]:
        return [
            LinearSystem.from_matrix(product_laplacian(np.exp(g), slip, shift), rhs, feature=np.exp(g))
            for g, shift in zip(fields, shifts, strict=True)
        ]

    none = np.zeros(num_systems)
    return {
        "published darcy": by_matrix(SLIP, none),
        "published helmholtz": by_matrix(SLIP, (step * wave_numbers) ** 2),
        "intended": by_matrix(0, none),
        "correct": [finite_volumes(np.exp(g), rhs) for g in fields],
        "correct, unit variance": [finite_volumes(np.exp(g / spread), rhs) for g in fields],
    }


@dataclass
class Row:
    """What a method took on a sequence, the first system excluded."""

    family: str
    method: str
    solutions: list[Solution]
    milliseconds: list[float]

    def summary(self) -> dict[str, object]:
        ended = [solution.status is SolveStatus.converged for solution in self.solutions]
        return {
            "family": self.family,
            "method": self.method,
            "iterations": round(float(np.mean([solution.num_iterations for solution in self.solutions])), 1),
            "iterations_each": [solution.num_iterations for solution in self.solutions],
            "ms": round(float(np.median(self.milliseconds)), 2),
            "converged": f"{sum(ended)} of {len(ended)}",
            "worst_residual": float(f"{max(solution.relative_residual for solution in self.solutions):.1e}"),
        }


def run(family: str, label: str, systems: list[LinearSystem], method: AbstractSolver, order: Order) -> Row:
    """What `solve_sequence` does, with a clock around every solve."""
    for system in systems:
        _ = system.matrix  # given, not timed
    running = method.build()
    solutions, milliseconds = [], []
    for index in order_of_systems(systems, method, order):
        began = time.process_time()
        solutions.append(solve_verified(running, systems[index], RTOL))
        milliseconds.append(1e3 * (time.process_time() - began))
    row = Row(family, label, solutions[1:], milliseconds[1:])
    say(row)
    return row


def say(row: Row) -> None:
    found = row.summary()
    print(
        f"  {row.method:40s} {found['iterations']:8.1f} iterations {found['ms']:10.1f} ms   converged "
        f"{found['converged']}, worst residual {found['worst_residual']:.0e}", flush=True
    )  # fmt: skip


class PetscGMRES:
    """PETSc's own GMRES(40), right-preconditioned, for the price of an iteration."""

    def __init__(self) -> None:
        from headrace.solvers.methods.direct import load_petsc

        self.petsc = load_petsc()

    def run(self, family: str, label: str, systems: list[LinearSystem], preconditioner: str) -> Row:
        petsc, solutions, milliseconds = self.petsc, [], []
        for system in systems[1:]:
            matrix = system.matrix
            csr = (matrix.indptr, matrix.indices, matrix.data)
            a = petsc.Mat().createAIJ(matrix.shape, csr=csr, comm=petsc.COMM_SELF)
            x, b = a.createVecs()
            b.setArray(system.rhs)
            began = time.process_time()
            ksp = petsc.KSP().create(petsc.COMM_SELF)
            ksp.setType("gmres")
            ksp.setGMRESRestart(40)
            ksp.setPCSide(petsc.PC.Side.RIGHT)
            ksp.getPC().setType(preconditioner)
            ksp.setOperators(a)
            ksp.setTolerances(rtol=0.98 * RTOL, atol=1e-300, max_it=LIMIT)
            ksp.solve(b, x)
            milliseconds.append(1e3 * (time.process_time() - began))
            value = x.getArray().copy()
            residual = system.relative_residual(value)
            status = SolveStatus.converged if residual <= RTOL else SolveStatus.max_iterations
            solutions.append(
                Solution(
                    value=value,
                    status=status,
                    relative_residual=residual,
                    num_iterations=ksp.getIterationNumber(),
                    seconds=0.0,
                    method="petsc",
                )
            )
            for thing in (ksp, x, b, a):
                thing.destroy()
        row = Row(family, label, solutions, milliseconds)
        say(row)
        return row


def smallest_eigenvalues(system: LinearSystem, count: int = 24) -> np.ndarray:
    """The eigenvalues nearest to 0, of the matrix divided by its largest row sum."""
    matrix = system.matrix.tocsc()
    values = scipy.sparse.linalg.eigs(
        matrix, k=count, sigma=0.0, return_eigenvectors=False, v0=np.ones(matrix.shape[0])
    )
    return values / float(abs(matrix).sum(axis=1).max())


def draw(rows: list[Row], spectra: dict[str, np.ndarray], path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = ["published darcy", "intended", "correct", "correct, unit variance"]
    colours = {
        "GMRES(40), none": "tab:red",
        "GCRO-DR(40,20), none, sorted": "tab:orange",
        "GCRO-DR(40,20), ilu0, sorted": "tab:olive",
        "direct": "tab:blue",
        "multigrid": "tab:green",
    }
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for axes, quantity, title in (
        (left, "iterations", "products with A per system"),
        (middle, "ms", "CPU milliseconds per system"),
    ):
        names = [name for name in colours if quantity == "ms" or name not in ("direct", "multigrid")]
        width = 0.8 / len(names)
        for position, name in enumerate(names):
            found = {row.family: row.summary() for row in rows if row.method == name}
            at = [i for i, family in enumerate(shown) if family in found]
            heights = [float(str(found[shown[i]][quantity])) for i in at]
            axes.bar([i + (position + 0.5) * width - 0.4 for i in at], heights, width, color=colours[name], label=name)
        axes.set_xticks(range(len(shown)), ["\n".join(name.split(", ")).replace(" ", "\n", 1) for name in shown])
        axes.set_yscale("log")
        axes.set_title(title)
    left.axhline(LIMIT, color="grey", linewidth=0.8, linestyle="--")
    middle.legend(fontsize=7)
    for family, marker in (("published darcy", "x"), ("intended", "+")):
        right.plot(spectra[family].real, spectra[family].imag, marker, label=family)
    right.axvline(0.0, color="grey", linewidth=0.8)
    right.set_title("eigenvalues nearest to 0 (first system)")
    right.set_xlabel("real part / ‖A‖∞")
    right.set_ylabel("imaginary part / ‖A‖∞")
    right.ticklabel_format(scilimits=(0, 0))
    right.legend(fontsize=7)
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)
    print(f"figure: {path}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=9, help="systems of a recycled sequence, the first included")
    parser.add_argument("--baseline", type=int, default=3, help="systems of GMRES, the first included")
    parser.add_argument("--size", type=int, default=100, help="unknowns a side")
    parser.add_argument("--figure", default="", help="where to draw, .svg or .png")
    arguments = parser.parse_args()
    if min(arguments.samples, arguments.baseline) < 2:
        parser.error("samples and baseline count the first system, which is excluded: expected at least 2")
    about = ran_on("numpy", "scipy", "numba")
    print("Question: what does recycling save, on the published matrices and on the equation as stated?")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"Process CPU ms per system, 1 thread, rtol {RTOL:g}, at most {LIMIT} products; the first system warms up.")
    petsc = PetscGMRES()
    rows: list[Row] = []
    spectra: dict[str, np.ndarray] = {}
    for family, systems in families(arguments.samples, arguments.size).items():
        spectra[family] = smallest_eigenvalues(systems[0])
        values = spectra[family]
        left = int((values.real < 0).sum())
        print(
            f"\n{family}: of the {values.size} eigenvalues nearest to 0, {left} are left of it; "
            f"the smallest has {np.abs(values).min():.1e} of the largest row sum"
        )
        few = systems[: arguments.baseline]
        for preconditioner in ("none", "jacobi", "ilu0"):
            if preconditioner != "none" and family == "published helmholtz":
                continue  # the shift of 1e-4 changes nothing; not worth the minutes
            plain = GCRODR(recycled=0, preconditioner=preconditioner, max_iterations=LIMIT)
            recycling = GCRODR(recycled=20, preconditioner=preconditioner, max_iterations=LIMIT)
            rows.append(run(family, f"GMRES(40), {preconditioner}", few, plain, "none"))
            if preconditioner != "jacobi":
                name = {"none": "none", "ilu0": "ilu"}[preconditioner]
                rows.append(petsc.run(family, f"PETSc GMRES(40), {preconditioner}", few, name))
            orders: tuple[tuple[Order, str], ...] = (("greedy", "sorted"), ("none", "unsorted"))
            for order, label in orders:
                rows.append(run(family, f"GCRO-DR(40,20), {preconditioner}, {label}", systems, recycling, order))
        rows.append(run(family, "direct", systems, Direct(), "none"))
        if systems[0].structure.diffusion:
            rows.append(run(family, "multigrid", systems, Multigrid(), "none"))
    if arguments.figure:
        draw(rows, spectra, arguments.figure)
    print(
        json.dumps(
            {
                "benchmark": "skr",
                "rtol": RTOL,
                "machine": about,
                "samples": arguments.samples,
                "baseline": arguments.baseline,
                "eigenvalues_left_of_0": {name: int((values.real < 0).sum()) for name, values in spectra.items()},
                "results": [row.summary() for row in rows],
            }
        )
    )


if __name__ == "__main__":
    main()

"""How much faster is the compiled multigrid than the fastest of PETSc's and SciPy's methods, at equal accuracy?

Darcy flow on 65, 129 and 257 points a side, log-normal and two-phase permeability; and an implicit step of heat
conduction, u / dt - div(a grad u), with the log-normal one and dt = 0.01. All methods solve the same systems, turn by
turn in one process, to a true relative residual of 1e-8, which is recomputed here from the system.

What is timed: process CPU time of set-up and solve of one system. What PETSc and SciPy are given for free: assembled
matrices with their values already inserted, and everything that depends on the grid alone (interpolation, symbolic
factorisation, GAMG's aggregates, pattern of the Galerkin products). What Headrace's multigrid is given for free: its
workspace. Its set-up of all coarse levels is timed.

The PCMG peer is tuned: conjugate gradients with the unpreconditioned norm; Galerkin coarse operators on a hierarchy of
DMDAs with bilinear interpolation, down to 3 x 3 points, factored there; one symmetric SOR sweep as smoother, with the
factors 1 and 1.2. Two sweeps, Chebyshev with SOR or Jacobi, and W-cycles are slower (`--tune` shows it).
Its grid includes the boundary as decoupled rows, 3 % more points, because DMDAs nest only so.

    python tests/benchmarks/multigrid_vs_petsc.py [--cases log-normal] [--sizes 65 129 257] [--systems 9] [--repeats 5]
        [--tune]

The last line is one JSON object.
"""

import argparse
import dataclasses
import itertools
import json
import os
import time

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

# ruff: noqa: E402  (libraries read the number of threads when they are imported)
import numpy as np
import scipy.sparse.linalg
from _machine import ran_on

from headrace.solvers import Darcy, LinearSystem, Multigrid
from headrace.solvers.methods.direct import load_petsc
from headrace.solvers.random_inputs.permeability import LogNormal, TwoPhase

PETSc = load_petsc()
RTOL = 1e-8
# Options stay in PETSc's database for good: every solver needs a prefix of its own.
_numbers = itertools.count()
# The two fields of the literature: correlation as that of alpha = 2.5, tau = 7, and values 3 and 12.
LOG_NORMAL, TWO_PHASE = LogNormal(length_scale=0.25), TwoPhase(length_scale=0.25)
# With the time step of the third; the box has the side 1, so heat spreads by about a tenth of it.
CASES = {"log-normal": (LOG_NORMAL, None), "two-phase": (TWO_PHASE, None), "heat step": (LOG_NORMAL, 0.01)}


class HeadraceMultigrid:
    """The contender."""

    name = "Headrace multigrid"

    def __init__(self) -> None:
        self._running = Multigrid().build()

    def prepare(self, system: LinearSystem) -> None:
        self._system = system

    def solve(self) -> tuple[np.ndarray, int]:
        solution = self._running.solve(self._system, RTOL)
        return solution.value, solution.num_iterations


class SciPy:
    """SuperLU with its defaults."""

    name = "SciPy spsolve"

    def prepare(self, system: LinearSystem) -> None:
        self._matrix, self._rhs = system.matrix.tocsc(), system.rhs

    def solve(self) -> tuple[np.ndarray, int]:
        return scipy.sparse.linalg.spsolve(self._matrix, self._rhs), 0


class Petsc:
    """A PETSc solver from its options; matrix, pattern and whatever PETSc can keep stay for the next system."""

    def __init__(self, name: str, options: dict[str, str | int | float]) -> None:
        self.name, self._options, self._ksp = name, options, None

    def prepare(self, system: LinearSystem) -> None:
        matrix, rhs = self._arrays(system)
        if self._ksp is None:
            shape = (rhs.size, rhs.size)
            csr = (matrix.indptr, matrix.indices, matrix.data)
            self._matrix = PETSc.Mat().createAIJ(shape, csr=csr, comm=PETSc.COMM_SELF)
            self._matrix.setOption(PETSc.Mat.Option.SPD, True)
            self._x, self._b = self._matrix.createVecs()
            self._ksp = PETSc.KSP().create(PETSc.COMM_SELF)
            prefix = f"contender{next(_numbers)}_"
            database = PETSc.Options(prefix)
            for key, value in self._options.items():
                database[key] = value
            self._ksp.setOptionsPrefix(prefix)
            self._ksp.setTolerances(rtol=0.98 * RTOL, atol=1e-300, max_it=2000)
            self._configure(system)
            self._ksp.setFromOptions()
        else:
            self._matrix.setValuesCSR(matrix.indptr, matrix.indices, matrix.data)
            self._matrix.assemble()
        self._b.setArray(rhs)
        self._ksp.setOperators(self._matrix)

    def solve(self) -> tuple[np.ndarray, int]:
        self._ksp.setUp()
        self._ksp.solve(self._b, self._x)
        iterations = 0 if self._options["ksp_type"] == "preonly" else self._ksp.getIterationNumber()
        return self._interior(self._x.getArray()), iterations

    def _arrays(self, system: LinearSystem) -> tuple[scipy.sparse.csr_array, np.ndarray]:
        return system.matrix, system.rhs

    def _configure(self, system: LinearSystem) -> None:
        pass

    def _interior(self, x: np.ndarray) -> np.ndarray:
        return x.copy()


class PetscMultigrid(Petsc):
    """CG + PCMG on all points of the grid, the boundary included as decoupled rows, so that DMDAs nest."""

    def _arrays(self, system: LinearSystem) -> tuple[scipy.sparse.csr_array, np.ndarray]:
        n = round(system.num_unknowns**0.5) + 2
        inside = np.zeros((n, n), dtype=bool)
        inside[1:-1, 1:-1] = True
        self._inside = inside.ravel()
        spread = scipy.sparse.eye_array(n * n, format="csc")[:, self._inside]
        boundary = scipy.sparse.diags_array((~self._inside) * float(system.matrix.diagonal().mean()))
        matrix = (spread @ system.matrix @ spread.T + boundary).tocsr()
        matrix.sort_indices()
        return matrix, spread @ system.rhs

    def _configure(self, system: LinearSystem) -> None:
        n = round(system.num_unknowns**0.5) + 2
        grids = [
            PETSc.DMDA().create(dim=2, sizes=(3, 3), comm=PETSc.COMM_SELF, stencil_type=PETSc.DMDA.StencilType.BOX)
        ]
        while grids[-1].getSizes()[0] < n:
            grids.append(grids[-1].refine())
        assert grids[-1].getSizes() == (n, n), "DMDAs nest on 2^k + 1 points"
        preconditioner = self._ksp.getPC()
        preconditioner.setType("mg")
        preconditioner.setMGLevels(len(grids))
        for level in range(1, len(grids)):
            preconditioner.setMGInterpolation(level, grids[level - 1].createInterpolation(grids[level])[0])

    def _interior(self, x: np.ndarray) -> np.ndarray:
        return x[self._inside]


def cg(**options: str | int | float) -> dict[str, str | int | float]:
    return {"ksp_type": "cg", "ksp_norm_type": "unpreconditioned", **options}


def mg(**options: str | int | float) -> dict[str, str | int | float]:
    return cg(pc_mg_galerkin="both", mg_coarse_pc_type="cholesky", mg_levels_ksp_norm_type="none", **options)


PCMG = mg(mg_levels_ksp_type="richardson", mg_levels_ksp_max_it=1, mg_levels_pc_type="sor")


def contenders() -> list[HeadraceMultigrid | Petsc | SciPy]:
    direct = {"ksp_type": "preonly", "pc_type": "cholesky"}
    return [
        HeadraceMultigrid(),
        PetscMultigrid("PETSc CG + PCMG", PCMG),
        PetscMultigrid("PETSc CG + PCMG, SOR factor 1.2", {**PCMG, "mg_levels_pc_sor_omega": 1.2}),
        Petsc("PETSc Cholesky, nested dissection", {**direct, "pc_factor_mat_ordering_type": "nd"}),
        Petsc("MUMPS", {**direct, "pc_factor_mat_solver_type": "mumps"}),
        Petsc("PETSc CG + ICC(2)", cg(pc_type="icc", pc_factor_levels=2)),
        Petsc("PETSc CG + GAMG", cg(pc_type="gamg", pc_gamg_reuse_interpolation=1)),
        SciPy(),
    ]


def tuning() -> list[HeadraceMultigrid | Petsc | SciPy]:
    """Other settings of PCMG."""
    levels = {"mg_levels_ksp_max_it": 2, "mg_levels_pc_type": "sor"}
    return [
        PetscMultigrid("SSOR", PCMG),
        PetscMultigrid("SSOR, 2 sweeps", mg(mg_levels_ksp_type="richardson", **levels)),
        PetscMultigrid("SSOR, omega 1.2", {**PCMG, "mg_levels_pc_sor_omega": 1.2}),
        PetscMultigrid("SSOR, W-cycle", {**PCMG, "pc_mg_cycle_type": "w"}),
        PetscMultigrid("Chebyshev 2 + SOR", mg(mg_levels_ksp_type="chebyshev", **levels)),
        PetscMultigrid(
            "Chebyshev 2 + Jacobi", mg(mg_levels_ksp_type="chebyshev", **{**levels, "mg_levels_pc_type": "jacobi"})
        ),
    ]


def system_of(case: str, n: int, seed: int) -> LinearSystem:
    """A system of a case on n points a side."""
    permeability, dt = CASES[case]
    problem = Darcy(resolution=n, permeability=permeability)
    system = problem.discretize(problem.draw(seed))
    if dt is None:
        return system
    # Conductances are permeabilities: the equation is multiplied by the area of a cell.
    reaction = np.full((n - 2, n - 2), 1.0 / (dt * (n - 1) ** 2))
    return LinearSystem.from_operator(dataclasses.replace(system.operator, reaction=reaction), system.rhs)


def compare(
    methods: list[HeadraceMultigrid | Petsc | SciPy], systems: list[LinearSystem], repeats: int
) -> list[dict[str, str | float]]:
    """Solve every system by every method, turn by turn; the first system warms up and does not count."""
    seconds = np.zeros((len(methods), repeats, len(systems)))
    iterations, worst = np.zeros((len(methods), len(systems))), np.zeros(len(methods))
    for i, system in enumerate(systems):
        for m, method in enumerate(methods):
            for repeat in range(repeats):
                method.prepare(system)
                started = time.process_time()
                x, iterations[m, i] = method.solve()
                seconds[m, repeat, i] = time.process_time() - started
            # Recomputed from the assembled matrix, which Headrace's multigrid never sees.
            residual = np.linalg.norm(system.rhs - system.matrix @ x) / np.linalg.norm(system.rhs)
            assert residual <= RTOL, f"{method.name} ends at {residual:.1e}"
            worst[m] = max(worst[m], residual)
    # The least of the repeats is what the solve costs; what comes on top is other people's load.
    cost = 1e3 * seconds[:, :, 1:].min(axis=1)
    spread = 1e3 * seconds[:, :, 1:]
    return [
        {
            "method": method.name,
            "ms": round(float(cost[m].mean()), 3),
            "ms_median_of_all": round(float(np.median(spread[m])), 3),
            "ms_p10": round(float(np.quantile(spread[m], 0.1)), 3),
            "ms_p90": round(float(np.quantile(spread[m], 0.9)), 3),
            "iterations": round(float(iterations[m, 1:].mean()), 1),
            "worst_residual": float(f"{worst[m]:.1e}"),
            "slower_than_headrace": round(float(cost[m].mean() / cost[0].mean()), 2),
        }
        for m, method in enumerate(methods)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", choices=CASES, nargs="+", default=list(CASES))
    parser.add_argument("--sizes", type=int, nargs="+", default=[65, 129, 257])
    parser.add_argument("--systems", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tune", action="store_true", help="compare settings of PCMG with each other")
    arguments = parser.parse_args()
    about = ran_on("numpy", "scipy", "numba", "dolfinx-solver-real")
    print("Question: is multigrid faster than PETSc and direct methods? Process CPU ms of set-up and solve, 1 thread.")
    print("Machine: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    print(
        f"Warm-up: the first of {arguments.systems} systems, not counted. Repeats: {arguments.repeats} per system, the "
        f"least counts. Spread: tenth and ninetieth percentile over all repeats and systems."
    )
    results: dict[str, list[dict[str, str | float]]] = {}
    for case in arguments.cases:
        for n in arguments.sizes:
            systems = [system_of(case, n, seed) for seed in range(arguments.systems)]
            rows = compare(
                [HeadraceMultigrid(), *tuning()] if arguments.tune else contenders(), systems, arguments.repeats
            )
            results[f"{case} {n}"] = rows
            print(f"\n{case}, {n} points a side ({(n - 2) ** 2} unknowns)")
            for row in rows:
                print(
                    f"  {row['method']:36s} {row['ms']:9.2f} ms  [{row['ms_p10']:.2f}, {row['ms_p90']:.2f}]  "
                    f"{row['iterations']:5.1f} iterations  {row['slower_than_headrace']:6.1f} x", flush=True
                )  # fmt: skip
            fastest = min(rows[1:], key=lambda row: row["ms"])
            print(f"  The fastest peer is {fastest['method']}: {fastest['slower_than_headrace']:.1f} x", flush=True)
    print(json.dumps({"benchmark": "multigrid_vs_petsc", "rtol": RTOL, "machine": about, "results": results}))


if __name__ == "__main__":
    main()

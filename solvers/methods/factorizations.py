"""Sparse factorisations of SciPy, PETSc, MUMPS and CHOLMOD behind one interface, and the key that finds them again."""

import contextlib
import ctypes
import functools
import importlib
import importlib.util
import os
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from jaxtyping import Float64, Shaped

from headrace.solvers.systems.system import LinearSystem, Structure

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Package = Literal["petsc", "mumps", "cholmod", "scipy"]

# A regular matrix whose condition number is beyond this leaves no correct digit to speak of in double precision, and a
# singular one comes out of its factorisation with a pivot of the size of rounding, 1e-16, instead of 0.
_SINGULAR = 1e14
# MUMPS's ICNTL(14): by how many per cent its workspace may outgrow the estimate. Pivots that are put off, as where
# central differences leave small diagonals, need more than the 20 that it has by itself, and end as "out of memory".
_MUMPS_EXTRA_WORKSPACE = 14


class MatrixKey:
    """Tells whether two systems have the same matrix, without building it: a hash of the values, then the values.

    Systems of an operator are compared by their conductances, others by their matrices. The hash is a checksum (CRC-32,
    a tenth of the time of a cryptographic hash): it is only there to tell different matrices apart quickly. It also
    notices arrays that were overwritten in place.
    """

    def __init__(self, system: LinearSystem) -> None:
        operator = system.operator
        self._about: tuple[object, ...]
        if operator is not None:
            self._arrays = (*operator.conductances, *(() if operator.reaction is None else (operator.reaction,)))
            self._about = (system.structure, operator.periodic, operator.reaction is None)
        else:
            matrix = system.matrix
            self._arrays = (matrix.data, matrix.indices, matrix.indptr)
            self._about = (system.structure, None, None)
        checksum = 0
        for array in self._arrays:
            checksum = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).ravel(), checksum)
        self._checksum = checksum

    def __hash__(self) -> int:
        return self._checksum

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MatrixKey):
            return NotImplemented
        return (
            self._checksum == other._checksum
            and self._about == other._about
            and all(a is b or np.array_equal(a, b) for a, b in zip(self._arrays, other._arrays, strict=True))
        )


class Factorization(ABC):
    """The factors of one matrix; factors matrices of the same pattern anew with the ordering that it computed first."""

    def __init__(self, system: LinearSystem) -> None:
        matrix = system.matrix
        self._structure, self._pattern = system.structure, (matrix.indptr, matrix.indices)

    def fits(self, system: LinearSystem) -> bool:
        """Whether the ordering serves this system's pattern."""
        return system.structure == self._structure and has_pattern(system.matrix, self._pattern)

    @abstractmethod
    def factor(self, system: LinearSystem) -> None:
        """Factor `system.regular_matrix`.

        Raises:
            ArithmeticError: it is singular, or not what `system.structure` says.
        """

    @abstractmethod
    def solve(self, block: Shaped[np.ndarray, "unknowns columns"]) -> Shaped[np.ndarray, "unknowns columns"]:
        """Solve for the columns of a block, by the factors that are there.

        Raises:
            ArithmeticError: the factors turn out to be useless.
        """

    def require_regular(self, system: LinearSystem) -> None:
        """Solve for a random right-hand side: where it grows by 1e14, the matrix is singular to working precision.

        ||A⁻¹ w|| ||A|| / ||w|| is a lower bound of the condition number, and for a random w seldom far below it
        (Dixon 1983, "Estimating extremal eigenvalues and condition numbers of matrices"). Looking at the solution
        itself would not do: a right-hand side that happens to lie in the range of a singular matrix has solutions with
        small residuals, all of them arbitrary.

        Raises:
            ArithmeticError: it is.
        """
        matrix = system.regular_matrix
        probe = _probe(matrix.shape[0]).astype(matrix.dtype, copy=False)
        with np.errstate(all="ignore"):
            grown = float(np.linalg.norm(self.solve(probe)))
            condition = grown * float(np.abs(matrix.data).max(initial=0.0))
        if not condition < _SINGULAR:
            raise ArithmeticError(
                f"the matrix is singular to working precision (condition number at least {condition:.0e}): a boundary "
                f"without any fixed value, a resonance, or an empty row"
            )

    def destroy(self) -> None:  # noqa: B027  (most factorisations are freed by Python)
        """Free what Python does not free by itself."""


@functools.lru_cache(maxsize=4)
def _probe(n: int) -> Float64[np.ndarray, "unknowns 1"]:
    """A random vector of length 1; on small matrices, drawing it would take as long as solving for it."""
    probe = np.random.default_rng(0).standard_normal((n, 1))
    probe /= np.linalg.norm(probe)
    probe.setflags(write=False)
    return probe


def has_pattern(matrix: "csr_array", pattern: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether a matrix has these row pointers and column indices."""
    indptr, indices = pattern
    if matrix.indptr.size != indptr.size or matrix.nnz != indices.size:
        return False
    # Operators of one grid share their index arrays.
    return (matrix.indptr is indptr or np.array_equal(matrix.indptr, indptr)) and (
        matrix.indices is indices or np.array_equal(matrix.indices, indices)
    )


def petsc_matrix(matrix: "csr_array", known: Structure):  # type: ignore[no-untyped-def]  # noqa: ANN201  (petsc4py has no types)
    """A PETSc matrix of the same pattern and values that knows its structure."""
    petsc = load_petsc()
    csr = (matrix.indptr, matrix.indices, matrix.data)
    created = petsc.Mat().createAIJ(matrix.shape, csr=csr, comm=petsc.COMM_SELF)
    created.setOption(petsc.Mat.Option.SYMMETRIC, known.symmetric)
    if known.positive_definite:
        created.setOption(petsc.Mat.Option.SPD, True)
    return created


class SuperLU(Factorization):
    """SciPy's SuperLU: LU with partial pivoting, real or complex; its ordering cannot be kept."""

    def factor(self, system: LinearSystem) -> None:
        """Factor anew."""
        from scipy.sparse.linalg import MatrixRankWarning, splu

        matrix = system.regular_matrix
        # Symmetric mode prefers diagonal pivots, which is right for positive definite matrices and wrong for others.
        options = {"SymmetricMode": True} if system.structure.positive_definite else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MatrixRankWarning)
            try:
                self._factors = splu(
                    matrix.astype(np.result_type(matrix.dtype, system.rhs.dtype, np.float64)).tocsc(),
                    permc_spec="MMD_AT_PLUS_A" if system.structure.symmetric else "COLAMD",
                    diag_pivot_thresh=0.0 if options else 1.0,
                    options=options,
                )
            except RuntimeError as error:
                raise ArithmeticError(f"SuperLU: {error}") from error

    def solve(self, block: Shaped[np.ndarray, "unknowns columns"]) -> Shaped[np.ndarray, "unknowns columns"]:
        """All columns at once."""
        return self._factors.solve(np.asfortranarray(block, dtype=self._factors.U.dtype))


class Petsc(Factorization):
    """A PETSc matrix of one pattern with PETSc's own factors (nested dissection, no pivoting) or those of MUMPS.

    Symmetric matrices get Cholesky or LDLᵀ factors. Of an indefinite matrix LDLᵀ is a fourth cheaper than LU and, as
    PETSc's LU chooses no pivots either, as safe: who needs pivots takes MUMPS.
    """

    def __init__(self, system: LinearSystem, package: Package) -> None:
        super().__init__(system)
        petsc = load_petsc()
        known = system.structure
        self._matrix = petsc_matrix(system.regular_matrix, known)
        self._solver = petsc.KSP().create(petsc.COMM_SELF)
        self._solver.setType(petsc.KSP.Type.PREONLY)
        preconditioner = self._solver.getPC()
        preconditioner.setType(petsc.PC.Type.CHOLESKY if known.symmetric else petsc.PC.Type.LU)
        if package == "mumps":
            preconditioner.setFactorSolverType("mumps")
        else:
            preconditioner.setFactorOrdering(_nested_dissection())
        self._solver.setOperators(self._matrix)
        if package == "mumps":
            preconditioner.setFactorSetUpSolverType()
            preconditioner.getFactorMatrix().setMumpsIcntl(_MUMPS_EXTRA_WORKSPACE, 100)
        self._x, self._b = self._matrix.createVecs()
        self._fresh, self._has_failed = True, False

    def factor(self, system: LinearSystem) -> None:
        """Put the values into the matrix; PETSc factors it at the next solve."""
        if not self._fresh:
            matrix = system.regular_matrix
            self._matrix.setValuesCSR(matrix.indptr, matrix.indices, matrix.data)
            self._matrix.assemble()
        self._fresh = False

    def solve(self, block: Shaped[np.ndarray, "unknowns columns"]) -> Shaped[np.ndarray, "unknowns columns"]:
        """The first column by itself, because that tells whether the factors are good; the others together."""
        petsc = load_petsc()
        out = np.empty(block.shape, order="F")
        self._b.setArray(block[:, 0])
        try:
            self._solver.solve(self._b, self._x)
        except petsc.Error as error:
            # Raised, not reported, for a pattern that lacks a diagonal entry.
            self._has_failed = True
            raise ArithmeticError(f"PETSc could not factor the matrix ({first_line(error)})") from error
        reason = int(self._solver.getConvergedReason())
        if reason < 0:
            raise ArithmeticError(f"PETSc could not factor the matrix: a pivot is 0, or has the wrong sign ({reason})")
        out[:, 0] = self._x.getArray()
        if block.shape[1] > 1:
            shape = (block.shape[0], block.shape[1] - 1)
            given = np.asfortranarray(block[:, 1:], dtype=np.float64)
            many, found = (
                petsc.Mat().createDense(shape, array=array, comm=petsc.COMM_SELF) for array in (given, out[:, 1:])
            )
            self._solver.getPC().getFactorMatrix().matSolve(many, found)
            out[:, 1:] = found.getDenseArray()
            many.destroy()
            found.destroy()
        return out

    def destroy(self) -> None:
        """Free what PETSc holds."""
        things = (self._solver, self._matrix, self._x, self._b)
        if self._has_failed:
            abandon(things)
        else:
            for thing in things:
                thing.destroy()


def abandon(things: Sequence[object]) -> None:
    """Never free PETSc's objects: those that an error left half made crash the process, at its end at the latest."""
    for thing in things:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def first_line(error: Exception) -> str:
    """What PETSc says of an error, without its stack of C functions."""
    line = str(error).splitlines()[0]
    return f"{line}: {meaning}" if (meaning := _MEANINGS.get(line)) else line


_MEANINGS = {
    "error code 55": "out of memory",
    "error code 71": "a pivot is 0",
    "error code 73": "an entry of the diagonal is missing",
    "error code 76": "the package refused the matrix, which is singular, not finite, or not what was said of it",
}


@functools.cache
def _nested_dissection() -> str:
    """METIS's, or PETSc's own where it is built without METIS: 3-9 % slower on grids, 20-30 % on triangles."""
    petsc = load_petsc()
    try:
        petsc.Mat().createConstantDiagonal(2, 1.0, comm=petsc.COMM_SELF).convert("aij").getOrdering("metisnd")
    except petsc.Error:
        return str(petsc.Mat.OrderingType.ND)
    return "metisnd"


class Cholmod(Factorization):
    """SuiteSparse's supernodal Cholesky through scikit-sparse, of either of its two interfaces (0.4 and 0.5)."""

    def __init__(self, system: LinearSystem) -> None:
        super().__init__(system)
        self._cholmod = load_cholmod()
        matrix = _lower_columns(system.regular_matrix)
        if hasattr(self._cholmod, "analyze"):
            held = self._cholmod.analyze(matrix, ordering_method="nesdis")
            self._refactor: Callable[[csr_array], None] = held.cholesky_inplace
            self._apply: Callable[[np.ndarray], np.ndarray] = held
        else:
            held = self._cholmod.CholeskyFactor(matrix, order="nesdis")
            self._refactor, self._apply = held.factorize, held.solve

    def factor(self, system: LinearSystem) -> None:
        """Factor with the ordering that is there."""
        try:
            self._refactor(_lower_columns(system.regular_matrix))
        except self._cholmod.CholmodNotPositiveDefiniteError as error:
            raise ArithmeticError(f"CHOLMOD: the matrix is not positive definite ({error})") from error

    def solve(self, block: Shaped[np.ndarray, "unknowns columns"]) -> Shaped[np.ndarray, "unknowns columns"]:
        """All columns at once."""
        return self._apply(np.asfortranarray(block, dtype=np.float64))


def _lower_columns(matrix: "csr_array") -> "csr_array":
    """The symmetric matrix as CHOLMOD wants it: compressed columns, which are its rows; int32 indices, own arrays."""
    from scipy.sparse import csc_matrix

    columns = (matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32))
    return cast("csr_array", csc_matrix(columns, shape=matrix.shape))


def make_factorization(system: LinearSystem, package: Package) -> Factorization:
    """The analysis of a pattern; `factor` follows."""
    if package == "scipy":
        return SuperLU(system)
    return Cholmod(system) if package == "cholmod" else Petsc(system, package)


@functools.cache
def cholmod_is_installed() -> bool:
    """Whether scikit-sparse is there and can be imported; it may have been built against another SuiteSparse."""
    try:
        load_cholmod()
    except ImportError:
        return False
    return True


@functools.cache
def load_cholmod() -> ModuleType:
    """Import scikit-sparse's CHOLMOD.

    Raises:
        ImportError: it is not installed.
    """
    return importlib.import_module("sksparse.cholmod")


@functools.cache
def petsc_is_installed() -> bool:
    """Whether the DOLFINx wheel, or petsc4py by itself, is there; imports neither."""
    return any(importlib.util.find_spec(name) is not None for name in ("dolfinx_solver", "petsc4py"))


@functools.cache
def load_petsc() -> ModuleType:
    """Import PETSc in the order that the DOLFINx wheel needs, without its signal handlers.

    The MPI below it talks to nobody: it serves this one process.
    """
    with _mpi_alone():
        if importlib.util.find_spec("dolfinx_solver") is not None:
            # The wheel makes its own petsc4py importable, so that it comes first.
            import dolfinx_solver  # noqa: F401
        import petsc4py

        petsc4py.init(["headrace", "-no_signal_handler"])
        from petsc4py import PETSc

    return PETSc


@contextlib.contextmanager
def _mpi_alone() -> Iterator[None]:
    """Let an MPI that starts in the block open no port: MPICH's UCX would listen on all of the machine's addresses.

    Only there: a program that a solver starts may need MPI's network. Who has said how UCX shall talk is obeyed, and so
    is who has started this very process as one of several.
    """
    is_told = "UCX_TLS" in os.environ or any(name in os.environ for name in ("PMI_SIZE", "PMIX_RANK"))
    if not is_told:
        os.environ["UCX_TLS"] = "self"
    try:
        yield
    finally:
        if not is_told:
            del os.environ["UCX_TLS"]

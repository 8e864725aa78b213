"""Equations in time on a GPU: against the CPU where there is one, else by tensors that have a device and no values."""

import numpy as np
import pytest
import torch
from torch import Tensor

from headrace.platform.errors import InputError
from headrace.platform.seeding import generator
from headrace.platform.spec import kinds
from headrace.solvers import device
from headrace.solvers.evolution import batched
from headrace.solvers.evolution.batched import AbstractBatchedEvolution
from headrace.solvers.evolution.conservation import AbstractConservationLaw
from headrace.solvers.evolution.etdrk4 import ETDRK4
from headrace.solvers.evolution.finite_volume import Scheme
from headrace.solvers.evolution.periodic_box import PeriodicBox
from headrace.solvers.evolution.semilinear import AbstractSemilinear
from headrace.solvers.evolution.stepper import Stepper
from headrace.solvers.problems import Burgers, ShallowWater
from headrace.solvers.sources.all_sampled import SAMPLED
from headrace.solvers.sources.trajectories import EvolutionSource

BATCHED = [one for one in kinds("headrace.problems", SAMPLED).values() if issubclass(one, AbstractBatchedEvolution)]


def cases(kind: type[AbstractBatchedEvolution]) -> list[AbstractBatchedEvolution]:
    """Ten steps of an equation in each dimension that it has."""
    found = []
    for dim in (1, 2, 3):
        try:
            problem = kind.model_validate({"dim": dim, "resolution": 16})
        except ValueError:
            continue
        found.append(problem.overridden({"horizon": 10.0 * problem.default_step, "snapshots": 2}))
    return found


CASES = [problem for kind in BATCHED for problem in cases(kind)]


def name(problem: AbstractBatchedEvolution) -> str:
    return f"{type(problem).__name__}-{len(problem.grid.shape)}d"


def at_start(problem: AbstractBatchedEvolution, shape: tuple[int, ...], **values: object) -> Tensor:
    """A batch of two without values: whoever mixes it with a tensor that lives on the CPU gets an error."""
    components = sum(spec.components for spec in problem.state)
    return torch.empty((2, components, *shape), device="meta", **values)  # type: ignore[call-overload,no-any-return]


@pytest.mark.gpu
@pytest.mark.parametrize("problem", CASES, ids=name)
def test_a_gpu_finds_what_the_cpu_finds(problem: AbstractBatchedEvolution) -> None:
    draws = [problem.at_level(level).draw(generator(0, level)) for level in ("default", *problem.levels())]
    there = problem.overridden({"device": "cuda"})
    for ours, theirs in zip(
        problem.follow(draws, problem.default_step), there.follow(draws, there.default_step), strict=True
    ):
        # Sums are rounded in another order; few of these steps let anything grow by more than a hundred.
        np.testing.assert_allclose(theirs.state, ours.state, rtol=1e-10, atol=1e-10 * np.abs(ours.state).max())
        np.testing.assert_array_equal(theirs.num_steps, ours.num_steps)
        np.testing.assert_allclose(theirs.defect, ours.defect, rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize("problem", [problem for problem in CASES if isinstance(problem, AbstractSemilinear)], ids=name)
def test_a_semilinear_step_stays_on_its_device(problem: AbstractSemilinear) -> None:
    grid = problem.grid
    scalars = {one: torch.empty((2, 1, *(1,) * problem.dim), device="meta").double() for one in problem.scalars}
    box = PeriodicBox(grid.shape, grid.extent, device="meta")
    equation = problem.equation(box, scalars)
    if equation.nonlinear is not None:
        box = PeriodicBox(grid.shape, grid.extent, degree=problem.degree, device="meta")
        equation = problem.equation(box, scalars)
    v = box.forward(at_start(problem, grid.shape, dtype=torch.float64))
    assert v.device.type == "meta" and v.shape[2:] == box.spectrum_shape
    v = v if equation.encode is None else equation.encode(v)
    v = ETDRK4.of(equation.symbol, 0.1).advance(v, equation.nonlinear)
    fields = box.backward(v if equation.decode is None else equation.decode(v))
    assert fields.device.type == "meta" and fields.shape[2:] == grid.shape and fields.dtype == torch.float64


@pytest.mark.parametrize(
    "problem",
    [
        problem.overridden({"boundary": boundary})
        for problem in CASES
        if isinstance(problem, AbstractConservationLaw)
        for boundary in ("periodic", "wall", "outflow")
    ],
    ids=name,
)
def test_a_step_of_a_conservation_law_stays_on_its_device(problem: AbstractConservationLaw) -> None:
    scalars = {one: torch.empty((2, *(1,) * problem.dim), device="meta").double() for one in problem.scalars}
    riemann, scheme = problem.riemann(scalars), Scheme(problem)
    primitive = at_start(problem, problem.grid.shape, dtype=torch.float64)
    size = 0.5 / scheme.rate(riemann, primitive)
    (*_, later) = scheme.advance(riemann, riemann.conserved(primitive), primitive, size)
    assert later.device.type == "meta" and later.shape == primitive.shape


@pytest.mark.parametrize("problem", [one for one in CASES if isinstance(one, AbstractSemilinear)], ids=name)
def test_a_step_by_tensors_alone_is_the_compiled_one(problem: AbstractSemilinear) -> None:
    # What a GPU does, here with values.
    grid, draws = problem.grid, [problem.draw(generator(0, "draw", number)) for number in range(3)]
    states = np.stack([np.concatenate([draw.fields[spec.name] for spec in problem.state]) for draw in draws])
    shape = (3, 1, *(1,) * problem.dim)
    scalars = {
        one: torch.tensor([draw.scalars[one] for draw in draws]).double().reshape(shape) for one in draws[0].scalars
    }
    found = []
    for is_compiled in (True, False):
        box = PeriodicBox(grid.shape, grid.extent, degree=problem.degree)
        if not is_compiled:
            box._is_compiled = False
        equation = problem.equation(box, scalars)
        if equation.nonlinear is None:
            pytest.skip("a product with e^{h L}, on every device")
        steps = ETDRK4.of(equation.symbol, problem.default_step)
        v = box.forward(torch.from_numpy(states))
        for _ in range(2):
            v = steps.advance(v, equation.nonlinear) if is_compiled else steps._in_torch(v, equation.nonlinear)
        found.append(box.backward(v))
    # Ten sums of numbers that do not cancel.
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-13 * float(found[0].abs().max()))


def test_a_rate_that_all_samples_share_and_a_symbol_without_waves_are_spread() -> None:
    # With u' = -u + 1 from 0: u = 1 - e^{-t}.
    v = torch.zeros((3, 2, 16), dtype=torch.complex128)
    expected = torch.full_like(v, 1.0 - np.exp(-0.5))
    for shape in ((1, 1, 16), (3, 2, 16), (1, 1, 1), ()):
        steps = ETDRK4.of(-torch.ones(shape, dtype=torch.float64), 0.5)
        for given in ((1, 1, 16), (1, 2, 1), (3, 2, 16)):
            rate = torch.ones(given, dtype=torch.complex128)
            torch.testing.assert_close(steps.advance(v, lambda u, rate=rate: rate), expected, rtol=1e-14, atol=0.0)


def test_a_device_that_is_not_there_is_said() -> None:
    problem = Burgers(device="cuda")
    if device.cuda_is_available():
        assert problem.unavailable() is None
        return
    words = "told to use cuda, which torch does not find here; use device auto or cpu"
    assert words in str(problem.unavailable())
    with pytest.raises(InputError, match=words):
        EvolutionSource(problem=problem).build()
    with pytest.raises(InputError, match=words):
        EvolutionSource(problem=Burgers(), mix={"far": 1.0}, levels={"far": {"device": "cuda"}}).build()


def test_auto_is_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(device, "cuda_is_available", lambda there=there: there)
        assert device.found_device("auto") == expected
        assert device.found_device("cpu") == "cpu"


def test_a_sample_says_that_it_comes_from_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Burgers(device="auto")
    monkeypatch.setattr(device, "cuda_is_available", lambda: True)
    assert Stepper(problem).method.endswith(", cuda")
    assert "cuda" not in Stepper(Burgers()).method
    monkeypatch.setattr(device, "cuda_is_available", lambda: False)
    assert Stepper(problem).method == Stepper(Burgers()).method


def test_a_gpu_gets_larger_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched, "found_device", lambda wanted: "cuda" if wanted == "auto" else wanted)
    for problem in (Burgers(resolution=64), ShallowWater(dim=2, resolution=256)):
        on_cpu, on_gpu = problem.batch_size, problem.overridden({"device": "auto"}).batch_size
        assert 1 <= on_cpu < on_gpu <= 4096
        values = sum(spec.components for spec in problem.state) * int(np.prod(problem.grid.shape))
        assert on_gpu * values <= 2**22

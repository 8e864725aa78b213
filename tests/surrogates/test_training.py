"""Training specs: schedules over the planned steps, defaults, and the words of their errors."""

import copy
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from headrace.platform.fields import SampleSchema
from headrace.platform.spec import kinds
from headrace.surrogates.optimizer import AbstractOptimizer
from headrace.surrogates.optimizers import OPTIMIZERS, AdamW, Muon
from headrace.surrogates.schedule import AbstractSchedule
from headrace.surrogates.schedules import SCHEDULES, Constant, Cosine, Linear, OneCycle, Staircase
from headrace.surrogates.training import TrainingSpec


@pytest.mark.parametrize("kind", kinds("headrace.schedules", SCHEDULES).values())
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
def test_every_schedule_stays_between_zero_and_the_peak(kind: type[AbstractSchedule], steps: int) -> None:
    schedule = kind()
    factors = [schedule.factor(step, steps) for step in range(steps)]
    assert all(0 <= factor <= 1 + 1e-12 for factor in factors)


def test_one_cycle_is_torch_s_without_the_momentum() -> None:
    steps = 50
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    peer = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=steps, pct_start=0.3, div_factor=25, final_div_factor=4e3, cycle_momentum=False
    )
    spec = OneCycle(warmup=0.3, start=0.04, end=1e-5)
    factors = [spec.factor(step, steps) for step in range(steps)]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < steps:
            peer.step()
    # torch ends the rise at step 0.3 * 50 - 1 = 14, we at 0.3 * 49 = 14.7: the last rate and the peak are the same.
    assert factors[0] == pytest.approx(rates[0]) and factors[-1] == pytest.approx(rates[-1])
    assert max(factors) == pytest.approx(max(rates), rel=1e-3)
    assert factors == pytest.approx(rates, abs=0.06)


def test_cosine_warms_up_then_falls_to_its_end() -> None:
    spec = Cosine(warmup=0.1, end=0.01)
    factors = [spec.factor(step, 101) for step in range(101)]
    assert factors[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    # From step 11 to step 100: half-way at 55.5, at the end exactly `end`.
    assert factors[11] == 1.0
    assert (factors[55] + factors[56]) / 2 == pytest.approx((1 + 0.01) / 2, abs=1e-3)
    assert factors[100] == pytest.approx(0.01)
    assert all(later < earlier for earlier, later in zip(factors[11:], factors[12:], strict=False))


def test_a_staircase_goes_down_at_its_shares_of_the_steps() -> None:
    factors = [Staircase().factor(step, 10) for step in range(10)]
    assert factors == [1.0] * 4 + [0.5] * 2 + [0.25] * 2 + [0.125, 0.0625]
    assert [Staircase(at=(), by=0.1).factor(step, 3) for step in range(3)] == [1.0] * 3
    with pytest.raises(ValidationError, match="increasing shares of the steps in at, got 0.4 after 0.4"):
        Staircase(at=(0.4, 0.4))


def test_a_line_goes_up_to_the_peak_and_down_to_its_end() -> None:
    assert [Linear(warmup=0.2).factor(step, 10) for step in range(10)] == pytest.approx(
        [0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    assert [Linear(warmup=0.0, end=0.5).factor(step, 4) for step in range(4)] == [1.0, 0.875, 0.75, 0.625]


def test_constant_is_constant() -> None:
    assert {Constant().factor(step, 7) for step in range(7)} == {1.0}


@pytest.mark.parametrize("kind", kinds("headrace.optimizers", OPTIMIZERS).values())
def test_every_optimizer_goes_downhill(kind: type[AbstractOptimizer]) -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    built = kind().build([parameter])
    for _ in range(20):
        built.zero_grad()
        value = parameter.square().sum()
        value.backward()
        built.step()
    assert parameter.square().sum() < 5


def _network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 16), torch.nn.Linear(16, 1)
        )


def _steps(network: torch.nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    x = torch.linspace(-1, 1, 24).reshape(8, 3)
    for _ in range(count):
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()


def test_muon_moves_hidden_matrices_by_orthogonal_steps_and_leaves_the_rest_to_adamw() -> None:
    muon, adamw = _network(), _network()
    before = muon[2].weight.detach().clone()
    _steps(muon, Muon(learning_rate=1e-2, matrix_learning_rate=0.1, weight_decay=0.0).build(muon.parameters()), 1)
    _steps(adamw, AdamW(learning_rate=1e-2, weight_decay=0.0).build(adamw.parameters()), 1)
    for name, weight in muon.named_parameters():
        assert torch.equal(weight, adamw.get_parameter(name)) == (name != "2.weight")
    # Newton-Schulz in bfloat16 brings the singular values near 1, not to it.
    sizes = torch.linalg.svdvals((muon[2].weight.detach() - before) / 0.1)
    assert sizes[0] < 1.3 and (sizes > 0.5).sum() >= 2


def test_muon_goes_on_from_its_state_as_if_nothing_had_happened() -> None:
    whole, first = _network(), _network()
    _steps(whole, Muon().build(whole.parameters()), 5)
    begun = Muon().build(first.parameters())
    _steps(first, begun, 3)
    again = Muon().build(first.parameters())
    again.load_state_dict(copy.deepcopy(begun.state_dict()))
    _steps(first, again, 2)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), first.parameters(), strict=True))


def test_a_schedule_scales_all_that_muon_joins() -> None:
    network = _network()
    optimizer = Muon(learning_rate=1e-3, matrix_learning_rate=1e-2).build(network.parameters())
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    parts = [group["lr"] for part in optimizer.parts for group in part.param_groups]  # type: ignore[attr-defined]
    assert parts == [group["lr"] for group in optimizer.param_groups] == [5e-3, 5e-4]


def test_a_spec_survives_json_and_its_hash() -> None:
    spec = TrainingSpec(loss={"kind": "relative_h1"}, schedule={"kind": "cosine", "warmup": 0.1})
    again = TrainingSpec.model_validate_json(spec.model_dump_json())
    assert again == spec and hash(again) == hash(spec)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"steps": 0}, "greater than 0"),
        ({"batch_sise": 16}, "Extra inputs are not permitted"),
        ({"loss": {"kind": "relative_l3"}}, "relative_l2', 'relative_h1"),
        ({"schedule": {"kind": "step"}}, "one_cycle', 'cosine', 'linear"),
        ({"optimizer": {"kind": "adamw", "learning_rate": -1}}, "greater than 0"),
        ({"precision": "16"}, "32-true"),
    ],
)
def test_wrong_settings_are_named_with_what_was_expected(data: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        TrainingSpec.model_validate(data)
    assert words in str(error.value)


def test_a_logarithm_of_an_unknown_field_is_a_mismatch(make_schema: Callable[..., SampleSchema]) -> None:
    spec = TrainingSpec(normalization={"log": ["pressure"]})
    assert spec.mismatch(make_schema()) == "normalization: log names pressure, the inputs are permeability, source"
    assert TrainingSpec().mismatch(make_schema()) is None

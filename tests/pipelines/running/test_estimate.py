"""What a recipe will take is known before it starts, and what cannot be held is refused with numbers."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace.pipelines.answers import console
from headrace.pipelines.cli import main
from headrace.pipelines.recipe.config import RunConfig, load
from headrace.pipelines.running import estimate as estimating
from headrace.pipelines.running.estimate import cost_key, estimate, shortages, told, warnings
from headrace.pipelines.running.generate import generate
from headrace.pipelines.running.online import run
from headrace.platform.errors import InputError

HUGE = ("data.samples=100000000", "data.problem.resolution=4097")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def smoke(*overrides: str) -> RunConfig:
    return load("smoke", overrides)


def leave_a_run(name: str, config: RunConfig, seconds: dict[str, float]) -> None:
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    cost = {
        level: {"whole_samples": 4.0, "cpu_seconds": 4 * each, "measured_for": cost_key(config, level)}
        for level, each in seconds.items()
    }
    (folder / "run.json").write_text(json.dumps({"cost": cost}))


def test_bytes_come_from_the_schema() -> None:
    found = estimate(smoke())
    # Permeability and pressure at 17 x 17 points, in single precision; ten columns of provenance and the index.
    assert found.sample_nbytes == 2 * 17 * 17 * 4
    assert found.data_nbytes == (96 + 8 + 16) * (2312 + 11 * 8)
    assert found.reservoir_nbytes == 64 * 2312 and found.held_out_nbytes == 8 * 2312
    assert found.checkpoint_nbytes == 3 * 4 * 7985
    assert estimate(smoke("data.samples=32", "stream.reservoir.capacity=1000")).reservoir_nbytes == 32 * 2312


def test_parts_of_trajectories_are_samples() -> None:
    whole, cut = (estimate(load("burgers_fno", more)) for more in ((), ("data.times_per_part=2",)))
    assert whole.samples["train"] is not None and cut.samples["train"] == 10 * whole.samples["train"]
    assert cut.data_nbytes > whole.data_nbytes


@pytest.mark.parametrize("command", ["check", "run", "generate"])
def test_what_the_disk_cannot_hold_is_refused_with_numbers(command: str) -> None:
    out = [] if command == "check" else ["--out", "new"]
    done = CliRunner().invoke(main, [command, "smoke", *HUGE, *out], catch_exceptions=False)
    assert done.exit_code == 2
    assert "data is 13.4 PB on the disk: 100,000,024 samples of 134 MB" in done.stderr
    assert "free for" in done.stderr
    assert not Path("new").exists()


@pytest.mark.parametrize("carry_out", [run, generate])
def test_a_run_is_refused_when_it_is_asked_for_in_python(carry_out: object) -> None:
    with pytest.raises(InputError, match=r"13\.4 PB"):
        carry_out(smoke(*HUGE), Path("new"), console)  # type: ignore[operator]


@pytest.mark.parametrize("count", ["data.samples", "data.validation", "data.test", "training.steps", "surrogate.width"])
def test_counts_that_nothing_counts_are_refused(count: str) -> None:
    done = CliRunner().invoke(main, ["check", "smoke", f"{count}=1{'0' * 30}"], catch_exceptions=False)
    assert done.exit_code == 2
    assert f"{count} is 1{'0' * 30}; expected less than or equal to 1000000000000" in done.stderr


@pytest.mark.parametrize(
    ("overrides", "place"),
    [
        (("surrogate.width=100000", "training.keep_checkpoints=1"), "surrogate"),
        (("stream.reservoir.capacity=1000000000", "data.samples=1000000000"), "stream.reservoir"),
    ],
)
def test_what_memory_cannot_hold_is_refused(
    overrides: tuple[str, ...], place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimating, "_free_nbytes", lambda folder: 10**18)
    config = smoke(*overrides)
    [fault] = shortages(estimate(config), config)
    assert fault.where == place and "TB in memory" in fault.value and "of this machine" in fault.expected
    # The machines of a cluster are others.
    config = smoke(*overrides, "resources.address=there:6379")
    assert shortages(estimate(config), config) == []


def test_what_fits_by_compression_alone_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    config = smoke()
    needed = estimate(config).disk_nbytes
    monkeypatch.setattr(estimating, "_free_nbytes", lambda folder: int(0.8 * needed))
    found = estimate(config)
    assert shortages(found, config) == [] and "only compression can make it fit" in warnings(found)[0]
    monkeypatch.setattr(estimating, "_free_nbytes", lambda folder: int(0.4 * needed))
    assert shortages(estimate(config), config) and warnings(estimate(config)) == []


def test_solver_time_is_that_of_earlier_runs_of_the_same() -> None:
    config = smoke()
    assert estimate(config).solver_seconds is None and "not known" in told(estimate(config))[-1]

    leave_a_run("first", config, {"smooth": 0.1, "rough": 0.4})
    Path("runs/first/broken").mkdir()
    found = estimate(config)
    assert found.solver_seconds == pytest.approx((96 + 8 + 16) * (2 * 0.1 + 0.4) / 3)
    assert "an estimate" in told(found)[-1] and "runs/first" in told(found)[-1]
    assert estimate(smoke("data.samples=192", "seed=3")).costs == {"smooth": 0.1, "rough": 0.4}
    for other in ("data.problem.resolution=33", "solver.rtol=1e-4", "solver.method={kind: direct}"):
        assert estimate(smoke(other)).solver_seconds is None


def test_solver_time_of_a_budget_is_the_budget_and_what_is_held_out() -> None:
    config = smoke("data.samples=null", "data.budget=50", "data.costs={smooth: 1.0, rough: 4.0}")
    assert estimate(config).solver_seconds == pytest.approx(50 + (8 + 16) * (2 * 1.0 + 4.0) / 3)
    assert told(estimate(config))[-1].endswith("(data.costs)")


def test_pilots_measure_what_nobody_has() -> None:
    done = CliRunner().invoke(main, ["check", "smoke", "--pilots", "--json"], catch_exceptions=False)
    found = json.loads(done.stdout.splitlines()[-1])["estimate"]
    assert found["costs"].keys() == {"smooth", "rough"} and found["solver_seconds"] > 0.0
    assert list(Path().iterdir()) == []

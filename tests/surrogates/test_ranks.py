"""Two ranks over gloo: equal weights, the same result as one rank, stopping together, failing together."""

import dataclasses
import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headrace.platform.fields import SampleSchema
from headrace.platform.sample import SampleBatch
from headrace.surrogates.checkpoint import load_checkpoint
from headrace.surrogates.datamodule import StoredDataModule, StreamDataModule
from headrace.surrogates.fit import fit
from headrace.surrogates.models.fno import FNO
from headrace.surrogates.training import TrainingSpec

SCRIPT = Path(__file__).with_name("two_ranks.py")
SURROGATE = FNO(modes=3, width=6, layers=2, projection_width=8)
TRAINING = TrainingSpec(steps=8, batch_size=4, validate_every=4, checkpoint_every=4, log_every=4)

pytestmark = pytest.mark.slow

Problem = tuple[SampleSchema, SampleBatch, SampleBatch]


@pytest.fixture(scope="module")
def problem(make_schema: Callable[..., SampleSchema], make_samples: Callable[..., SampleBatch]) -> Problem:
    schema = make_schema((8, 8), num_parameters=1)
    return schema, make_samples(schema, 30), make_samples(schema, 7, seed=1)


@pytest.fixture(scope="module")
def folder(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two ranks ran every scenario of `two_ranks.py`."""
    folder = tmp_path_factory.mktemp("ranks")
    schema, samples, held_out = problem
    (folder / "surrogate.json").write_text(SURROGATE.model_dump_json())
    (folder / "training.json").write_text(TRAINING.model_dump_json())
    (folder / "schema.json").write_text(json.dumps(schema.to_json()))
    for name, batch in (("train", samples), ("validation", held_out)):
        provenance = json.dumps([dataclasses.asdict(row) for row in batch.provenance])
        arrays = {key: getattr(batch, key) for key in ("indices", "inputs", "outputs", "parameters")}
        np.savez(folder / f"{name}.npz", provenance=provenance, **arrays)
    subprocess.run([sys.executable, str(SCRIPT), str(folder)], check=True, timeout=110)
    return folder


@pytest.fixture(scope="module")
def seen(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def states(folder: Path, scenario: str) -> list[Mapping[str, torch.Tensor]]:
    return [torch.load(folder / scenario / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("scenario", ["stored", "dry"])
def test_ranks_end_with_the_same_weights_and_scales(folder: Path, scenario: str) -> None:
    first, second = states(folder, scenario)
    assert any("input_moments" in name for name in first)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_two_ranks_train_as_one_rank_with_their_joint_batch(folder: Path, problem: Problem, tmp_path: Path) -> None:
    schema, samples, held_out = problem
    reports: list[tuple[int | None, Mapping[str, float]]] = []
    alone = fit(
        surrogate=SURROGATE,
        training=TRAINING.model_copy(update={"batch_size": 8}),
        schema=schema,
        data=StoredDataModule(samples=samples, batch_size=8, validation=held_out),
        report=lambda step, metrics: reports.append((step, metrics)),
        checkpoint_dir=tmp_path,
    )
    assert alone.checkpoint is not None
    expected, found = load_checkpoint(alone.checkpoint), load_checkpoint(folder / "stored" / "rank-0" / "last.pt")
    # Sums of float32 in another order, through 8 steps of Adam, which divides by small numbers.
    for name, tensor in expected.weights.items():
        assert torch.allclose(found.weights[name], tensor, rtol=1e-3, atol=1e-4), name
    for name, tensor in expected.moments.items():
        assert torch.allclose(found.moments[name], tensor, rtol=1e-9), name
    assert expected.ranges is not None and found.ranges is not None
    for name, tensor in expected.ranges.items():
        assert torch.equal(found.ranges[name], tensor), name
    two = json.loads((folder / "rank-0.json").read_text())["stored"]["reports"]
    for (step, metrics), (expected_step, expected_metrics) in zip(two, reports, strict=True):
        assert step == expected_step
        for name in ("train/loss", "validation/relative_l2", "validation/relative_l2/rough"):
            if name in expected_metrics:
                assert metrics[name] == pytest.approx(expected_metrics[name], rel=1e-3)


def test_uneven_batches_weigh_as_one_batch_of_all_their_rows(folder: Path, problem: Problem, tmp_path: Path) -> None:
    schema, samples, _ = problem
    fit(
        surrogate=SURROGATE,
        training=TRAINING.model_copy(update={"steps": 1}),
        schema=schema,
        data=StreamDataModule(pull=lambda size, step: samples.take(range(10)), batch_size=10),
        callbacks=[runpy.run_path(str(SCRIPT))["FirstGradient"](tmp_path / "gradient.pt")],
    )
    expected = torch.load(tmp_path / "gradient.pt", weights_only=True)
    size = torch.cat([gradient.flatten() for gradient in expected.values()]).norm()
    for rank in (0, 1):
        found = torch.load(folder / "uneven" / f"gradient-{rank}.pt", weights_only=True)
        difference = torch.cat([(found[name] - expected[name]).flatten() for name in expected]).norm()
        # The mean of the ranks' means is 7 % off.
        assert difference < 1e-6 * size


def test_each_rank_tells_what_it_observed_itself(seen: list[dict[str, Any]]) -> None:
    assert [rank["uneven"]["observed"] for rank in seen] == [list(range(8)) * 8, [8, 9] * 8]


def test_rank_0_alone_reports_and_writes(folder: Path, seen: list[dict[str, Any]]) -> None:
    assert seen[0]["stored"]["reports"] and not seen[1]["stored"]["reports"]
    assert (folder / "stored" / "rank-0" / "last.pt").is_file()
    assert not (folder / "stored" / "rank-1").exists()


def test_both_count_the_samples_of_both(seen: list[dict[str, Any]]) -> None:
    assert [rank["stored"]["samples_seen"] for rank in seen] == [64, 64]


def test_a_stream_that_dries_up_on_one_rank_stops_both_at_the_same_step(seen: list[dict[str, Any]]) -> None:
    for rank in seen:
        assert rank["dry"]["steps"] == 3
        assert rank["dry"]["stopped"] == "stream exhausted after 3 of 8 steps"


def test_a_stream_that_fails_on_one_rank_fails_both(seen: list[dict[str, Any]]) -> None:
    assert seen[1]["broken"]["error"] == "ConnectionError: the shard is gone"
    assert seen[0]["broken"]["error"] == (
        "RuntimeError: another rank failed to get its batch of step 2; its log says why"
    )

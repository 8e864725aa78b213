"""RunRecord: what a run's folder holds, read for telling."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from headrace.pipelines.report.palette import in_order
from headrace.pipelines.run_dir import RunDir, read_metrics
from headrace.pipelines.summary import LevelCost, RunSummary, read_summary
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.errors import InputError
from headrace.platform.fields import SampleSchema

EXAMPLES = 4


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """All that a run's folder holds for its page; a part that is missing or broken is empty and named in `missing`."""

    path: Path
    run: RunSummary = RunSummary()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    recipe_text: str = ""
    metrics: Sequence[Mapping[str, Any]] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    examples: Mapping[str, np.ndarray] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    @property
    def schema(self) -> SampleSchema | None:
        """What the samples are, when the run has written it down."""
        try:
            return None if self.run.sample_schema is None else SampleSchema.from_json(self.run.sample_schema)
        except (KeyError, ValueError):
            return None

    @property
    def errors(self) -> Mapping[str, Mapping[str, Any]]:
        """Held-out errors per level, `all` first."""
        levels: Mapping[str, Mapping[str, Any]] = self.evaluation.get("levels") or self.run.errors
        return self._by_level(levels)

    @property
    def cost(self) -> dict[str, dict[str, Any]]:
        """What the solvers spent per level, every entry complete."""
        cost = self.run.cost
        # Runs of before wrote no whole samples.
        whole = {name: {"whole_samples": spent.samples} for name, spent in cost.items()}
        return {
            name: LevelCost().model_dump() | whole[name] | cost[name].to_json() for name in in_order(cost, self.levels)
        }

    @property
    def unit(self) -> str:
        """What the cost is said of: a trajectory where training samples are parts of them."""
        return "trajectory" if any(one["whole_samples"] != one["samples"] for one in self.cost.values()) else "sample"

    @property
    def rollout(self) -> Mapping[str, Any]:
        """Errors of forecasts over time, `all` first; empty where there are none."""
        rollout = mapping(self.evaluation.get("rollout"))
        groups = self._by_level(mapping(rollout.get("groups")))
        return {**rollout, "groups": groups} if groups else {}

    def _by_level[T](self, found: Mapping[str, T]) -> dict[str, T]:
        """In the order of the mix, `all` first; a single level is all there is, and is not said twice."""
        names = in_order(found, ["all", *self.levels])
        return {name: found[name] for name in (names[:1] if names[:1] == ["all"] and len(names) == 2 else names)}

    @property
    def levels(self) -> list[str]:
        """The difficulty levels in the order of the recipe's mix."""
        return RunDir(self.path).levels


def read_run(directory: Path) -> RunRecord:
    """Read what there is of a run; never fails for a part that is not there."""
    missing: list[str] = []

    def part[T](name: str, read: Callable[[Path], T], empty: T) -> T:
        try:
            return read(directory / name)
        except FileNotFoundError:
            missing.append(f"{name} is not there")
        except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
            missing.append(f"{name} cannot be read: {error}")
        return empty

    recipe_text = part("recipe.yaml", lambda path: path.read_text(encoding="utf-8"), "")
    run = part("run.json", read_summary, RunSummary())
    # A data set is not evaluated; its page shows samples.
    evaluates = run.command != "generate"
    return RunRecord(
        path=directory,
        run=run,
        recipe_text=recipe_text,
        recipe=part("recipe.yaml", lambda path: mapping(yaml.safe_load(path.read_text(encoding="utf-8"))), {}),
        metrics=part("metrics.jsonl", read_metrics, []),
        evaluation=part("evaluation.json", _read_mapping, {}) if evaluates else {},
        arrays=part("evaluation.npz", _read_arrays, {}) if evaluates else {},
        examples={} if evaluates else part("data/train", _read_examples, {}),
        missing=tuple(dict.fromkeys(missing)),
    )


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one: records of older runs lack parts."""
    return value if isinstance(value, Mapping) else {}


def _read_mapping(path: Path) -> Mapping[str, Any]:
    return mapping(json.loads(path.read_text(encoding="utf-8")))


def _read_examples(path: Path) -> dict[str, np.ndarray]:
    """The first sample of each level, and more of the first ones until there are `EXAMPLES`."""
    try:
        stored = StoredSamples.open(path)
    except InputError as error:
        raise ValueError(str(error)) from error
    levels = np.array(stored.levels)
    _, first = np.unique(levels, return_index=True)
    rest = np.setdiff1d(np.arange(min(len(stored), 2 * EXAMPLES)), first)
    positions = np.sort(np.concatenate([np.sort(first)[:EXAMPLES], rest[: max(EXAMPLES - len(first), 0)]]))
    positions = positions[np.argsort(levels[positions], kind="stable")]
    batch = stored.batch(positions)
    return {"inputs": batch.inputs, "outputs": batch.outputs, "index": batch.indices, "level": levels[positions]}


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in ("inputs", "truth", "prediction", "index", "level", "relative_l2")}

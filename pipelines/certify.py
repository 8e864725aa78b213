"""`headrace predict --certify`: what the equation says of predictions, and solutions that go on from them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from pydantic import TypeAdapter
from rich.console import Console

from headrace.pipelines.recipe.config import load
from headrace.pipelines.run_dir import RunDir, data_sets
from headrace.pipelines.running.progress import RunProgress
from headrace.platform.dataset.manifest import read_manifest
from headrace.platform.errors import InputError
from headrace.solvers.sampled import AbstractSampled, AbstractSource
from headrace.solvers.sources.all_sampled import AnySampled
from headrace.solvers.sources.source_of import source_of
from headrace.solvers.systems.solver import require_tolerance


@dataclass(frozen=True, kw_only=True)
class Certified:
    """What came of it.

    Attributes:
        arrays: by name, the first axis that of the samples (see `AbstractSource.certify`).
        words: the same for a person.
    """

    arrays: dict[str, Float[np.ndarray, "samples ..."]]
    words: tuple[str, ...]

    @property
    def summary(self) -> dict[str, float]:
        """Medians over the samples, and how many were finished, for a program."""
        found = {name: float(np.nanmedian(values)) for name, values in self.arrays.items() if name != "certified"}
        if "certified" in self.arrays:
            found["finished"] = float(self._is_finished.sum())
        return found

    @property
    def _is_finished(self) -> np.ndarray:
        certified = self.arrays["certified"]
        return np.isfinite(certified.reshape(len(certified), -1)).all(axis=1)


def certifier(
    model: str, console: Console, *, asked: bool, times: str | None, to_rtol: float | None, level: str | None
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], Certified] | None:
    """What certifies the predictions of a run, for the options of `headrace predict`; None when it is not asked.

    Raises:
        InputError: options that need `--certify` stand without it, the tolerance is out of reach, or the model is no
            run whose recipe names a problem.
    """
    if not asked:
        for name, value in (("--to-rtol", to_rtol), ("--level", level)):
            if value is not None:
                raise InputError.single(
                    name, str(value), "nothing without --certify", "Add --certify, or leave it out."
                )
        return None
    if times is not None:
        raise InputError.single("--times", times, "nothing with --certify", "A defect is that of all output times.")
    if to_rtol is not None:
        require_tolerance(to_rtol)
    run = RunDir.open(Path(model))
    source = _source(run)
    return lambda inputs, outputs, parameters: certify_predictions(
        source, inputs, outputs, parameters, console=console, level=level, to_rtol=to_rtol
    )


def certify_predictions(
    source: AbstractSource,
    inputs: Float[np.ndarray, "samples channels_in *grid"],
    outputs: Float[np.ndarray, "samples time channels_out *grid"],
    parameters: Float[np.ndarray, "samples num_parameters"],
    *,
    console: Console,
    level: str | None = None,
    to_rtol: float | None = None,
) -> Certified:
    """Put predictions into the equation that a run was trained on; go on from them with its solver if asked.

    Args:
        source: what the run's samples were made by.
        inputs: in physical units, as they were predicted from.
        outputs: the predictions.
        parameters: of the samples.
        console: where progress is shown.
        level: the difficulty level whose problem it is; may be left out where all of the run's agree.
        to_rtol: the relative residual that solutions must reach; None to look at the predictions only.

    Raises:
        InputError: there is no such level, the levels do not agree and none is named, or a sample does not tell its
            equation.
    """
    config_levels = list(source.mix)
    if level is not None and level not in config_levels:
        raise InputError.single("--level", f'"{level}"', f"a level of the run: {', '.join(config_levels)}")

    def arrays_of(number: int, at: str, rtol: float | None = to_rtol) -> dict[str, np.ndarray]:
        try:
            return source.certify(at, inputs[number], outputs[number], parameters[number], rtol)
        except ValueError as error:
            raise InputError.single(
                f"sample {number}", "not certified", "what the equation allows", str(error)
            ) from error

    if level is None:
        level = config_levels[0]
        first = arrays_of(0, level, None)
        for other in config_levels[1:]:
            if any(
                not np.allclose(first[name], values, rtol=1e-6) for name, values in arrays_of(0, other, None).items()
            ):
                raise InputError.single(
                    "--level",
                    "missing",
                    f"one of {', '.join(config_levels)}",
                    "The levels of this run are different equations for the same inputs.",
                )
    if to_rtol is not None:
        arrays_of(0, level)  # thrown away: imports and compilation are nobody's seconds
    rows = []
    with RunProgress(console) as progress:
        for number in range(len(inputs)):
            progress.update(phase="certifying", stored=number, planned=len(inputs))
            rows.append(arrays_of(number, level))
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return Certified(arrays=arrays, words=tuple(_words(arrays, to_rtol)))


def _source(run: RunDir) -> AbstractSource:
    """What made the samples that a run was trained on: its recipe says it, or the manifest of its data."""
    config = load(str(run.recipe), (), "train") if run.recipe.is_file() else None
    if config is not None and config.data is not None:
        return config.source("test")
    folder = run.read_summary().data_folder
    train = data_sets(Path(folder)).get("train") if folder and Path(folder).is_dir() else None
    manifest = read_manifest(train) if train is not None else None
    if manifest is None or manifest.source is None:
        raise InputError.single(
            str(run.path),
            "a run whose recipe and data name no problem",
            "one that was trained on an equation of Headrace's",
            "Of data from elsewhere the equation is not known.",
        )
    settings = dict(manifest.source)
    problem: AbstractSampled = TypeAdapter(AnySampled).validate_python(settings.pop("problem"))
    return source_of(problem, **settings)


def _words(arrays: dict[str, np.ndarray], to_rtol: float | None) -> list[str]:
    """A line for each thing that a person wants to know."""
    lines = []
    if "relative_residual" in arrays:
        residual = arrays["relative_residual"]
        lines.append(
            f"relative residual of the predictions: median {np.median(residual):.2g}, largest {residual.max():.2g} "
            "(0 everywhere has 1; it is no error: small wiggles weigh most)"
        )
    if "defect" in arrays:
        defect = arrays["defect"]
        worst = np.nanmax(defect, axis=1)
        lines.append(
            f"defect, what an interval between two output times adds to the error: median {np.nanmedian(defect):.2g}, "
            f"largest of a sample in the median {np.median(worst):.2g}"
        )
        if lost := int(np.isnan(defect).any(axis=1).sum()):
            lines.append(f"of {lost} samples the solver could not follow some states: there the defect is NaN")
    if "certified" in arrays:
        done = np.isfinite(arrays["certified"].reshape(len(arrays["certified"]), -1)).all(axis=1)
        lines.append(f"{int(done.sum())} of {len(done)} solutions finished to {to_rtol:.0e} from the predictions")
        for name, unit, factor in (("num_iterations", "iterations", 1.0), ("seconds", "ms", 1000.0)):
            ours, theirs = (factor * float(arrays[f"{name}{end}"].mean()) for end in ("", "_by_itself"))
            saved = f"{abs(theirs - ours):.3g} {'saved' if ours <= theirs else 'lost'}"
            lines.append(f"{ours:.3g} {unit} a sample, {theirs:.3g} with the solver's own start: {saved}")
    return lines

"""`headrace export RUN`: a trained model as a file that other programs call."""

from pathlib import Path

from headrace.pipelines.answers import Answer
from headrace.pipelines.run_dir import RunDir
from headrace.platform.errors import InputError
from headrace.platform.files import usable_path
from headrace.surrogates.portable.export import export_model


def export_trained(source: Path, name: str, out: Path, precision: str, grid: str | None) -> Answer:
    """Write the newest checkpoint of a run, or a checkpoint file, in a format.

    Args:
        source: the run's folder, or the file.
        name: of the format, one of `MODEL_FORMATS`.
        out: the folder to make.
        precision: of all numbers, float32 or float64.
        grid: the points that the file shall take, as in `64x64`; None for those of the training.

    Raises:
        InputError: something does not fit or is missing.
        RunFailed: the file did not say what the surrogate says.
    """
    if faults := RunDir.unusable(out):
        raise InputError(faults)
    usable_path(source, "DIR", "a run's folder, or a checkpoint")
    checkpoint = source if source.is_file() else RunDir.open(source).checkpoint
    done = export_model(
        checkpoint,
        name,
        out.resolve(),
        precision="float64" if precision == "float64" else "float32",
        grid=_shape(grid),
    )
    words = f"differs from the surrogate by {done.error:.1e} (relative; at most {done.limit:g} is allowed)"
    return Answer(
        words=[f"{done.files[0]}: {words}", *map(str, done.files[1:])],
        data={"files": [str(file) for file in done.files], "relative_error": done.error, "card": done.card},
        instead=True,
    )


def _shape(grid: str | None) -> tuple[int, ...] | None:
    if grid is None:
        return None
    try:
        return tuple(int(points) for points in grid.split("x"))
    except ValueError as error:
        raise InputError.single("--grid", grid, "points along each axis, as in 64x64") from error

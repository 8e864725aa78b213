"""`headrace resume`: go on with a run after any crash."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from headrace.pipelines.recipe.config import SPLITS, Command, load
from headrace.pipelines.run_dir import RunDir
from headrace.pipelines.running import generate, online, train
from headrace.pipelines.running.session import Earlier, Session
from headrace.platform.errors import Fault, InputError
from headrace.platform.joint_checkpoint import newest
from headrace.platform.ledger.ledger import Ledger
from headrace.platform.ledger.recovery import recover

CHANGEABLE = ("resources", "tracking")


def resume(path: Path, overrides: Sequence[str], console: Console) -> Session | None:
    """Go on with a run where its ledger, its logs and its newest checkpoint say that it is.

    Args:
        path: the run's folder.
        overrides: `KEY=VALUE` for what may be another one than before: the cluster and the tracking.
        console: for the progress.

    Returns:
        The session; None when the run had finished.

    Raises:
        InputError: there is no run in the folder, another process works on it, or it is damaged.
        RunFailed: as of the command that is gone on with.
    """
    run = RunDir.open(path, writes=True)
    summary = run.read_summary()
    faults = [
        Fault(where=override, value="not to be changed", expected=f"keys of {' and '.join(CHANGEABLE)} only")
        for override in overrides
        if override.partition(".")[0].partition("=")[0] not in CHANGEABLE
    ]
    commands: dict[str, Command] = {"run": "run", "generate": "generate", "train": "train"}
    command = commands.get(summary.command)
    if command is None:
        faults.append(Fault(where=f"{run.summary}: command", value=summary.command, expected="run, generate or train"))
    if faults or command is None:
        raise InputError(faults)
    if summary.status == "finished":
        return None
    config = load(str(run.recipe), overrides, command)
    before = load(str(run.recipe), command=command).resources.trainers.ranks
    if config.is_paced and config.resources.trainers.ranks != before:
        raise InputError.single(
            "resources.trainers.ranks",
            str(config.resources.trainers.ranks),
            f"{before}, as the run began: which samples a rank gets is fixed in a deterministic or replayed stream",
        )
    earlier = Earlier(run=run, summary=summary, lock=run.claim())
    if command == "train":
        folder = summary.data_folder
        if folder is None:
            raise InputError.single(str(run.summary), "without data_folder", "a run that had begun", "Start it anew.")
        return train.train(config, Path(folder), earlier, console)
    if run.ledger.is_file():
        found = recover(run.ledger, {str(split): run.data(split) for split in SPLITS})
        console.print(
            f"{run.path.name}: {found.found} samples found that were stored and not yet counted, "
            f"{found.missing} missing, {found.released} that were under way are solved again",
            highlight=False,
        )
        checkpoint = newest(run.checkpoints)
        with Ledger.open(run.ledger, read_only=True) as ledger:
            version = ledger.version
        if checkpoint is not None and checkpoint.ledger_version > version:
            raise InputError.single(
                str(run.ledger),
                f"of version {version}",
                f"a ledger at least as new as the checkpoint of step {checkpoint.step}, version "
                f"{checkpoint.ledger_version}",
                "It is another run's, or an old copy; put the right one back.",
            )
    if command == "generate":
        return generate.generate(config, earlier, console)
    return online.run(config, earlier, console)

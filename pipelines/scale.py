"""`headrace scale`: ask a run that is at work for more or fewer solver actors."""

from collections.abc import Sequence

from headrace.pipelines.run_dir import RunDir, write_json
from headrace.platform.errors import Fault, InputError
from headrace.platform.yaml_text import read_yaml

MOST = 100_000


def scale(run: RunDir, changes: Sequence[str]) -> int:
    """Leave a note in the run's folder, which its process reads within seconds.

    Solvers that are too many finish what they have leased; more of them start as soon as the cluster has room, and
    nodes may join it later.

    Args:
        run: the run.
        changes: `solvers=NUMBER`, once.

    Returns:
        The number.

    Raises:
        InputError: it is no such change, no solvers work in the run, or nobody works on it.
    """
    faults = []
    key, _, value = changes[0].partition("=")
    if len(changes) != 1 or key != "solvers" or not value.isdecimal() or not 1 <= int(value) <= MOST:
        faults.append(Fault(where="scale", value=" ".join(changes), expected=f"solvers=NUMBER, from 1 to {MOST}"))
    # Every default is written out in it; reading it as a recipe would import torch.
    recipe = read_yaml(run.recipe.read_text(encoding="utf-8"), str(run.recipe))
    if run.read_summary().command == "train" or recipe["stream"]["mode"] == "replay":
        faults.append(Fault(where=str(run.path), value="without solvers", expected="a run in which solvers work"))
    elif not run.is_worked_on:
        faults.append(
            Fault(
                where=str(run.path),
                value="at rest",
                expected="a run that a process works on",
                advice=f"headrace resume {run.path} resources.solvers.actors=NUMBER",
            )
        )
    if faults:
        raise InputError(faults)
    write_json(run.scale, {"solvers": int(value)})
    return int(value)

"""`headrace submit`: the same run, as a job on a Ray cluster."""

import os
from collections.abc import Callable, Sequence

from headrace.pipelines.recipe.config import parse, read_recipe, validate
from headrace.platform.cluster import jobs

FORWARDED = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def submit_run(
    recipe: str, overrides: Sequence[str], address: str, out: str | None, show: Callable[[str], None]
) -> tuple[str, str]:
    """Check the recipe here, run it there, show its log; return the job's id and last status.

    The tracking server's settings in this environment travel along; a server on this machine's loopback is not one
    that the cluster can reach, which the job then says before it starts.

    Raises:
        InputError: the recipe is wrong, or the cluster does not answer or does not let us in.
    """
    config = validate(parse(read_recipe(recipe), recipe, overrides))
    environment = {name: os.environ[name] for name in FORWARDED if name in os.environ}
    arguments = ["--json", *(["--out", out] if out else [])]
    return jobs.submit(address, config.to_yaml(with_password=True), arguments, environment, show)

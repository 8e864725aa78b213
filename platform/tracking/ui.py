"""MLflow's pages: the command that serves them, and where the charts of runs are on them."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from headrace.platform.errors import InputError
from headrace.platform.tracking.address import (
    artifact_folder,
    is_server,
    resolve_address,
    sqlite_file,
    without_password,
)
from headrace.platform.tracking.tracker import TrackingSpec


def ui_command(spec: TrackingSpec, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves MLflow's pages over the store of this machine.

    Raises:
        InputError: the store is a server, which shows its own pages.
    """
    uri = resolve_address(spec.uri)
    if is_server(uri):
        shown = without_password(uri)
        raise InputError.single("tracking.uri", shown, "a database to show the pages of", f"Open {shown} in a browser.")
    # Without the first setting the server starts seven more processes, for jobs that no run of ours has.
    settings = ["env", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true"]
    store = ["--backend-store-uri", uri, "--default-artifact-root", artifact_folder(uri).as_uri()]
    address = ["--host", host, "--port", str(port), "--workers", "1"]
    return [*settings, sys.executable, "-m", "mlflow", "server", *store, *address]


def charts_page(spec: TrackingSpec, host: str = "127.0.0.1", port: int = 5000) -> str:
    """Where the charts of the runs are on the pages that `ui_command` serves.

    Their front page is about language models, and so are an experiment's, unless the address says otherwise.
    """
    where = host if ":" not in host else f"[{host}]"
    page, query = f"http://{where}:{port}/#/experiments", "workflowType=machine_learning"
    file = sqlite_file(resolve_address(spec.uri))
    number = None if file is None else _latest_experiment(file)
    return f"{page}?{query}" if number is None else f"{page}/{number}/runs?{query}&compareRunsMode=CHART"


def _latest_experiment(file: Path) -> str | None:
    """That of the latest run; None where there is none, or no telling."""
    latest = "SELECT experiment_id FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time DESC LIMIT 1"
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=1.0)) as connection:
            found = connection.execute(latest).fetchone()
    except sqlite3.Error:  # no file, no table yet, or of another MLflow
        return None
    return None if found is None else str(found[0])

"""The address of a tracking store: which one a recipe means, and whether it can be used, before MLflow is imported."""

import os
import socket
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from headrace.platform.errors import Fault

if TYPE_CHECKING:
    import requests

ENVIRONMENT = "MLFLOW_TRACKING_URI"
RUNS = Path("runs")
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
EXPECTED = (
    "http(s)://HOST:PORT of an MLflow server, sqlite:///FILE, postgresql://..., mysql://..., mssql://... or databricks"
)
# In force unless the user has set them. The sender tries again by itself, so a single request gives up early; a run
# tells nobody outside about itself; MLflow's banners do not belong between the lines of a run's log.
MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # a uv.lock where a run is started is not the environment of its model
    "GIT_PYTHON_REFRESH": "quiet",
}
CHECK_SECONDS = 5.0
CONNECT_SECONDS = 3.0

# What is wrong with an address: what stands there, what was expected, what to do.
type Trouble = tuple[str, str, str]


def resolve_address(uri: str | None) -> str:
    """The recipe's address, else that of `MLFLOW_TRACKING_URI`, else `runs/mlflow.db`; a SQLite path made absolute."""
    uri = uri or os.environ.get(ENVIRONMENT)
    if not uri:
        return sqlite_address(RUNS / "mlflow.db")
    file = sqlite_file(uri)
    if file is not None:
        _, mark, query = uri.partition("?")
        return sqlite_address(file) + mark + query
    return uri.rstrip("/") if is_server(uri) else uri


def sqlite_address(file: Path) -> str:
    """The address of a SQLite file, whatever characters its path has; `sqlite_file` is the way back.

    MLflow reads the path twice: SQLAlchemy as part of a URL, in which `%` and `?` mean something; and itself, for a
    folder to make, as it stands, unless the address names a driver.
    """
    path = str(file.absolute())
    quoted = path.replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{path}" if quoted == path else f"sqlite+pysqlite:///{quoted}"


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite address; None for every other address."""
    scheme, _, path = uri.partition(":///")
    file = unquote(path.partition("?")[0])
    return Path(file).expanduser() if scheme.partition("+")[0] == "sqlite" and file else None


def is_server(uri: str) -> bool:
    """Whether an MLflow server stands behind the address, rather than a database."""
    return urlsplit(uri).scheme in ("http", "https") or is_databricks(uri)


def is_databricks(uri: str) -> bool:
    """Whether the address is a Databricks workspace, named or by profile."""
    return uri == "databricks" or uri.startswith("databricks://")


def artifact_folder(uri: str) -> Path:
    """Where the files of a run go when no server takes them: `mlartifacts` beside the SQLite file, or in `runs`."""
    file = sqlite_file(uri)
    return (RUNS if file is None else file.parent).absolute() / "mlartifacts"


def without_password(uri: str) -> str:
    """The address as it may be shown and stored."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(SplitResult(parts.scheme, f"{parts.username}:***@{host}", parts.path, parts.query, ""))


def check_address(uri: str | None, where: str) -> list[Fault]:
    """What keeps the store from being used, found within `CHECK_SECONDS`; empty when nothing does.

    Args:
        uri: the address that the recipe gives, if it gives one.
        where: the place of that address in the recipe.
    """
    from_environment = not uri and ENVIRONMENT in os.environ
    address = resolve_address(uri)
    probe = _probe(address)
    trouble = _within(CHECK_SECONDS, probe) if probe else (without_password(address), EXPECTED, "")
    if trouble is None:
        return []
    value, expected, advice = trouble
    undo = f"unset {ENVIRONMENT}" if from_environment else f"remove {where}"
    remedy = f"Or {undo} to keep runs in {RUNS / 'mlflow.db'}, or set tracking.enabled=false."
    place = f"{where} (from {ENVIRONMENT})" if from_environment else where
    return [Fault(where=place, value=value, expected=expected, advice=f"{advice} {remedy}".strip())]


def _probe(address: str) -> Callable[[], Trouble | None] | None:
    """The check that fits the address; None when MLflow knows no such address."""
    scheme = urlsplit(address).scheme.partition("+")[0]
    file = sqlite_file(address)
    if file is not None:
        return lambda: _probe_file(file)
    if is_databricks(address):
        return lambda: None  # its own client finds host and token, and says so when it does not
    if scheme in ("http", "https") and urlsplit(address).hostname:
        return lambda: _probe_server(address)
    if scheme in DATABASE_PORTS and urlsplit(address).hostname:
        return lambda: _probe_database(address, DATABASE_PORTS[scheme])
    return None


def _within(seconds: float, probe: Callable[[], Trouble | None]) -> Trouble | None:
    """Wait for a probe at most so long: looking up a name can hang, and nothing can interrupt it."""
    found: list[Trouble | None] = []

    def look() -> None:
        try:
            found.append(probe())
        except OSError as error:  # a folder that may not even be looked into, a name that is no name
            found.append((str(error), EXPECTED, ""))

    thread = threading.Thread(target=look, name="tracking-check", daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else (f"no answer within {seconds:g} s", "a store that answers", "Is the network up?")


def _probe_file(file: Path) -> Trouble | None:
    """A check leaves nothing behind: folders that are not there yet are made when a run starts."""
    expected = "a SQLite file that can be written"
    holder = file if file.exists() else next(parent for parent in file.parents if parent.exists())
    if file.is_dir() or (holder != file and not holder.is_dir()):
        return f"{file} (no place for a file)", expected, f"{holder} stands in the way; name another file."
    if not os.access(holder, os.W_OK):
        return f"{file} (not writable)", expected, f"Give yourself the right to write to {holder}."
    try:
        if file.exists():
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=1.0)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return f"{file} ({error})", expected, "Is the file damaged, or held by another program?"
    return None


def _probe_server(address: str) -> Trouble | None:
    # Takes a quarter of a second to import: those whose store is a file do not wait for it.
    import requests

    expected = "an MLflow server that answers"
    shown = without_password(address)
    parts = urlsplit(address)
    start = f"Start it (`mlflow server --host {parts.hostname} --port {parts.port or 5000}`), or correct the address."
    try:
        answer = requests.get(
            f"{address}/api/2.0/mlflow/experiments/search",
            params={"max_results": "1"},
            timeout=(CONNECT_SECONDS, CHECK_SECONDS - 0.5),
            headers=_token_header(),
            auth=_user(),
            verify=_certificate(),
        )
    except requests.Timeout:
        return f"{shown} (no answer in time)", expected, start
    except requests.exceptions.SSLError as error:
        return f"{shown} ({error})", "a certificate that is trusted", "Set MLFLOW_TRACKING_SERVER_CERT_PATH."
    except requests.RequestException as error:
        return f"{shown} ({_reason(error)})", expected, start
    if answer.status_code == 403 and "host header" in answer.text.lower():
        advice = f"Start the server with `--allowed-hosts {parts.netloc.rpartition('@')[2]}`: it refuses that name now."
        return f"{shown} (403: {answer.text.strip()[:100]})", "a server that takes requests under this name", advice
    if answer.status_code in (401, 403):
        advice = "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        return f"{shown} (status {answer.status_code}, not let in)", "a server that lets you in", advice
    if not answer.ok or "json" not in answer.headers.get("content-type", ""):
        return f"{shown} (status {answer.status_code}, not MLflow's)", expected, "Something else listens there."
    return None


def _probe_database(address: str, port: int) -> Trouble | None:
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return f"{without_password(address)} ({error})", "a database server that answers", "Start it, or correct this."
    return None


def _reason(error: "requests.RequestException") -> str:
    """The cause at the bottom of a chain of network errors, in a few words."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    return getattr(cause, "strerror", None) or str(cause)


def _token_header() -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _user() -> tuple[str, str] | None:
    name = os.environ.get("MLFLOW_TRACKING_USERNAME")
    return (name, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if name else None


def _certificate() -> bool | str:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return False
    return os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or True

"""`headrace dashboard`: a page that shows how a run goes, read from its folder; it changes nothing."""

import json
import logging
import math
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources

from headrace.pipelines.report.palette import COLOURS, level_colours
from headrace.pipelines.report.status import status
from headrace.pipelines.run_dir import RunDir, finite
from headrace.platform.errors import InputError

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_POINTS = 400  # of a curve: more than a chart has room for
_DRAWN = ("stream/samples_per_second", "stream/fill", "train/loss")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def serve(run: RunDir, host: str, port: int) -> ThreadingHTTPServer:
    """A server that is bound and not yet at work: call its `serve_forever`.

    Args:
        run: the run to show.
        host: the address to listen on.
        port: 0 for any that is free.

    Raises:
        InputError: the address cannot be listened on.
    """
    page = (resources.files("headrace.pipelines.report") / "templates" / "dashboard.html").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        """Answers GET for the page and for the status, and nothing else."""

        server_version, sys_version = "Headrace", ""

        def do_GET(self) -> None:
            name = self.headers.get("Host", "").rsplit(":", 1)[0].strip("[]")
            # A page of somebody else whose name was made to point here must not read what is shown.
            if host in LOOPBACK and name not in LOOPBACK:
                self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"this page is served to this machine only\n")
            elif self.path == "/":
                self._answer(HTTPStatus.OK, "text/html; charset=utf-8", page)
            elif self.path == "/status.json":
                try:
                    found = status(run) | {"history": history(run)}
                    found["colours"] = colours(found["validation"], run.levels)
                except InputError as error:
                    self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", str(error).encode())
                    return
                self._answer(HTTPStatus.OK, "application/json", json.dumps(finite(found)).encode())
            else:
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is / and /status.json\n")

        def _answer(self, code: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(code)
            for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **_HEADERS}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            log.debug(format, *args)

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        raise InputError.single(
            "--host, --port", f"{host}:{port}", "an address that is free here", str(error)
        ) from error


def colours(found: Iterable[str], levels: Sequence[str]) -> dict[str, str]:
    """The colour of each level, and of `all`: those of the report's pictures."""
    return {"all": COLOURS[0], **level_colours((level for level in found if level != "all"), levels)}


def history(run: RunDir) -> dict[str, list[tuple[float, float]]]:
    """The curves of a run: time since its start [s] and value, thinned out to what can be drawn."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for values in run.read_metrics():
        for name, value in values.items():
            drawn = name in _DRAWN or name.startswith("validation/relative_l2")
            if drawn and value is not None and math.isfinite(value):
                curves.setdefault(name, []).append((values["seconds"], float(value)))
    return {name: _thinned(points) for name, points in curves.items()}


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    step = -(-len(points) // MOST_POINTS)
    return [*points[:-1:step], points[-1]]

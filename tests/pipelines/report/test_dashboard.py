"""`headrace dashboard`: the page and its data over HTTP; read-only, for this machine only."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from headrace.pipelines.cli import main
from headrace.pipelines.recipe.config import load
from headrace.pipelines.report.curves import validation_error
from headrace.pipelines.report.dashboard import MOST_POINTS, colours, history, serve
from headrace.pipelines.report.palette import COLOURS
from headrace.pipelines.run_dir import RunDir
from headrace.pipelines.running.session import Session
from headrace.platform.ledger.ledger import Ledger


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    session = Session(load("smoke", ["tracking.enabled=false"], "run"), "run", tmp_path / "run")
    Ledger.create(session.run.ledger, {"train": 10}).close()
    for step in range(1000):
        session.record({"train/loss": 1.0 / (1 + step), "other": 1.0}, step=step)
    session.record({"train/loss": float("nan"), "validation/relative_l2/hard": 0.5}, step=1000)
    return session.run


@pytest.fixture
def address(run: RunDir) -> Iterator[tuple[str, int]]:
    server = serve(run, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield "127.0.0.1", server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join(5)


def ask(address: tuple[str, int], path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_the_page_and_its_data(address: tuple[str, int], run: RunDir) -> None:
    code, headers, page = ask(address, "/")
    assert code == 200 and b"status.json" in page and b"http://" not in page.replace(b"http://www.w3.org", b"")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    code, _, text = ask(address, "/status.json")
    assert code == 200
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["status"] == "running" and found["splits"]["train"]["planned"] == 10
    assert len(found["history"]["train/loss"]) <= MOST_POINTS + 1
    assert found["history"]["train/loss"][-1][1] == 1.0 / 1000
    assert found["history"]["validation/relative_l2/hard"][0][1] == 0.5 and "other" not in found["history"]


def test_it_serves_nothing_else_and_changes_nothing(address: tuple[str, int], run: RunDir) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if "sqlite" not in path.name}
    assert ask(address, "/../run.json")[0] == 404
    assert ask(address, "/recipe.yaml")[0] == 404
    assert ask(address, "/", "POST")[0] == 501
    assert ask(address, "/status.json", "DELETE")[0] == 501
    assert before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if "sqlite" not in path.name}


def test_a_name_that_somebody_pointed_here_is_refused(address: tuple[str, int]) -> None:
    assert ask(address, "/status.json", Host="evil.example")[0] == 403
    assert ask(address, "/status.json", Host="localhost:8100")[0] == 200


def test_a_damaged_run_is_told_to_the_page(address: tuple[str, int], run: RunDir) -> None:
    run.summary.write_text("{")
    code, _, text = ask(address, "/status.json")
    assert code == 503 and b"the JSON of a run" in text


def test_a_port_that_is_taken_is_an_error_with_status_2(address: tuple[str, int], run: RunDir) -> None:
    done = CliRunner().invoke(main, ["dashboard", str(run.path), "--port", str(address[1])], catch_exceptions=False)
    assert done.exit_code == 2 and "an address that is free here" in " ".join(done.stderr.split())


def test_curves_of_a_run_without_metrics(tmp_path: Path) -> None:
    assert history(RunDir(tmp_path)) == {}


def test_levels_have_the_colours_of_the_report(address: tuple[str, int], run: RunDir) -> None:
    found = json.loads(ask(address, "/status.json")[2])
    recorded = [{"seconds": 1.0, "step": 1, "validation/relative_l2": 0.2, "validation/relative_l2/smooth": 0.1,
                 "validation/relative_l2/rough": 0.3}]  # fmt: skip
    lines = {line.get_label(): line.get_color() for line in validation_error(recorded, run.levels).axes[0].lines}
    assert colours(["all", "rough", "smooth"], run.levels) == lines
    assert found["colours"]["all"] == lines["all"] and found["colours"].keys() == {"all", "hard"}
    page = ask(address, "/")[2].decode().lower()
    assert "found.colours" in page and not any(colour.lower() in page for colour in COLOURS[1:6])

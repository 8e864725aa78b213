"""The documentation: it builds strictly, its links lead somewhere, it shows every key, command and problem."""

import html
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

from headrace.pipelines.cli import main
from headrace.pipelines.recipe.config import RunConfig
from headrace.solvers.sources.all_sampled import SAMPLED

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
KINDS = [str(kind.model_fields["kind"].default) for kind in SAMPLED if kind.__name__ != "External"]
SCHEMA = RunConfig.model_json_schema()


class Page(HTMLParser):
    """What a page refers to: links, and what a browser would load by itself; and what may be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in ("img", "script", "iframe", "source") and "src" in given:
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.loads.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_links_and_anchors_lead_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    broken = []
    for path, page in pages.items():
        for link in (*page.links, *page.loads):
            parts = urlparse(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            wanted = unquote(parts.fragment)
            if not target.exists() or (wanted and target in pages and wanted not in pages[target].anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken, "\n".join(broken[:20])
    assert sum(len(page.links) for page in pages.values()) > 1000


def test_nothing_is_loaded_from_another_host(site: Path, pages: dict[Path, Page]) -> None:
    foreign = [f"{path.name}: {one}" for path, page in pages.items() for one in page.loads if urlparse(one).netloc]
    assert not foreign
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", style.read_text(encoding="utf-8")), style


def keys(schema: Mapping[str, Any]) -> Iterator[str]:
    yield from (key for key, value in schema.get("properties", {}).items() if (key, "const" in value) != ("kind", True))


def test_the_reference_has_every_key_and_says_what_it_is(site: Path) -> None:
    shown = "".join((site / "reference" / f"{name}.html").read_text(encoding="utf-8") for name in REFERENCES)
    rows = re.findall(r"<tr>\s*<td><code>([\w.]+)</code></td>(.*?)</tr>", shown, re.S)
    found = [where.rpartition(".")[2] for where, _ in rows]
    wanted = [key for one in (SCHEMA, *SCHEMA["$defs"].values()) for key in keys(one)]
    assert sorted(found) == sorted(wanted)
    silent = [where for where, cells in rows if not re.findall(r"<td>(.*?)</td>", cells, re.S)[-1].strip()]
    assert not silent, f"nothing is said of {silent}"


REFERENCES = ("recipe", "problems", "methods", "kinds", "parts")


def test_the_reference_has_defaults_and_units(site: Path) -> None:
    recipe = text_of(site / "reference" / "recipe.html")
    assert re.search(r"training\.steps\s+whole number > 0\s+1000\s", recipe)
    assert re.search(r"stream\.message_seconds\s+number > 0 \[s\]\s+2\.0\s", recipe)
    assert re.search(r"data\.problem\s+one of them\s+required", recipe)


def test_every_command_and_option_is_shown(site: Path) -> None:
    shown = text_of(site / "reference" / "commands.html")
    for name, command in main.commands.items():
        assert f"headrace {name} " in shown
        for option in command.params:
            assert all(word in shown for word in option.opts if word.startswith("--")), name


@pytest.mark.parametrize("kind", KINDS)
def test_every_problem_is_in_the_gallery(kind: str, site: Path) -> None:
    cost = json.loads((DOCS / "gallery" / "costs.json").read_text())[kind]
    assert all(0 < level["cpu_seconds"] < 60 and level["samples"] > 0 for level in cost["levels"].values())
    assert cost["defaults"]["samples_per_second"] > 0 and cost["defaults"]["samples"] > 0
    page = (site / "gallery.html").read_text(encoding="utf-8")
    assert f'href="#{kind}"' in page.partition("<tbody>")[2].partition("</tbody>")[0]
    assert f'id="{kind}"' in page and f'src="gallery/{kind}.webp"' in page
    assert (site / "gallery" / f"{kind}.webp").stat().st_size < 100_000


def test_the_pictures_are_small() -> None:
    assert sum(path.stat().st_size for path in DOCS.rglob("*.webp")) < 3_000_000


def test_no_page_is_left_out_of_the_navigation(pages: dict[Path, Page], site: Path) -> None:
    index = next(page for path, page in pages.items() if path == site / "index.html")
    listed = {(site / urlparse(link).path).resolve() for link in index.links}
    rest = {path for path in pages if path not in listed and path.parent.name not in ("benchmarks", "external_solvers")}
    assert not rest, f"not in the navigation: {sorted(path.name for path in rest)}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a * b_c <d> `x_y|z`", r"a \* b\_c &lt;d&gt; `x_y|z`"), ("[s]", r"\[s\]")],
)
def test_words_are_shown_as_they_are(text: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_site"))
    assert importlib.import_module("words").escaped(text) == shown


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted((DOCS / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_and_is_stored_without_outputs(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MPLBACKEND")  # that of all tests draws into no notebook
    import nbformat
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    found = nbformat.read(notebook, as_version=4)
    cells = [cell for cell in found.cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)
    manager = AsyncKernelManager(kernel_name="python3")
    NotebookClient(found, timeout=100, km=manager, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any(output.output_type == "display_data" for cell in cells for output in cell.outputs)

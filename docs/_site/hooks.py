"""What MkDocs calls while it builds the site: pages made from the program itself, and the list of benchmarks."""

import json
from pathlib import Path

import commands
import gallery
import recipe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parents[1]


def _title(page: Path) -> str:
    """Its first heading."""
    lines = (line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
    return next(lines, page.stem).removeprefix("# ")


def _benchmarks() -> list[Path]:
    """Newest first; those without a date at the end."""
    return sorted(
        (DOCS / "benchmarks").glob("*.md"), key=lambda path: (path.name[0].isdigit(), path.name), reverse=True
    )


def _benchmark_list() -> str:
    rows = [
        f"| {path.stem[:10] if path.stem[:2] == '20' else ''} | [{_title(path)}]({path.name}) |"
        for path in _benchmarks()
    ]
    words = (
        "# Benchmarks\n\nWhat was measured, the losing results too. Each page names the command that measures it anew; "
        "`make bench` runs them all.\n\n| date | question |\n|---|---|\n"
    )
    return words + "\n".join(rows) + "\n"


def _notebook(path: Path) -> str:
    """A notebook as a page: its words, and its code without outputs."""
    note = f"This page is a notebook: [{path.name}]({path.name}), to be run from its first cell to its last."
    parts = [f'!!! note ""\n\n    {note}']
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join([parts[1], parts[0], *parts[2:]]) + "\n"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the program."""
    made = {
        **recipe.pages(),
        "reference/commands.md": commands.page(),
        "gallery.md": gallery.page(),
        "benchmarks/index.md": _benchmark_list(),
        **{f"notebooks/{path.stem}.md": _notebook(path) for path in sorted((DOCS / "notebooks").glob("*.ipynb"))},
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files

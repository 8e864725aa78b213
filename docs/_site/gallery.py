"""The gallery: every problem with its picture, its equation and what a sample of it costs."""

import json
from pathlib import Path
from typing import Any

from words import docstring, escaped, paragraphs

from headrace.solvers.sampled import AbstractSampled
from headrace.solvers.sources.all_sampled import SAMPLED

FOLDER = Path(__file__).parents[1] / "gallery"
INTRODUCTION = """# Gallery

Every built-in problem at three of its levels, as it comes: above what a network is given, below what it has to say at
the last time (of one in space the middle plane; in 1-D over time). Below each picture stands what a sample costs, in
CPU seconds of one core, with what drawing and verifying takes, and without compilation. `python docs/make_gallery.py`
draws and measures all of this anew; {measured}.

{table}

A recipe names one as `data: {{problem: {{kind: ...}}}}`; [Problems](reference/problems.md) has all settings.
"""


def problems() -> dict[str, type[AbstractSampled]]:
    """Every built-in problem by its kind, but for programs of one's own, which look like nothing in particular."""
    found = {str(kind.model_fields["kind"].default): kind for kind in SAMPLED}
    return {name: kind for name, kind in found.items() if name != "external"}


def _seconds(value: float) -> str:
    return f"{value:g} s" if value >= 1 else f"{1000 * value:g} ms"


def _entry(name: str, kind: type[AbstractSampled], cost: dict[str, Any]) -> str:
    words = docstring(kind.__doc__)
    prices = ", ".join(f"{level} {_seconds(one['cpu_seconds'])}" for level, one in cost["levels"].items())
    body = words.body.partition("\n\nGood values:")[0]
    return "\n\n".join(
        [
            f"## {name}",
            f"{escaped(words.first)}",
            f"![{name} at the levels {', '.join(cost['levels'])}](gallery/{name}.webp)",
            f"**A sample** of {_points(cost)}: {escaped(prices)}. [Settings](reference/problems.md#{name})",
            f'??? note "More about it"\n\n{_indented(paragraphs(body))}' if body else "",
        ]
    )


def _table(costs: dict[str, dict[str, Any]]) -> str:
    """Whole samples a second and core of every problem at its defaults."""
    whole = {name: costs[name]["defaults"] for name in problems()}
    machines = {f"one thread of {one['processor']} on {one['date']}" for one in whole.values()}
    rows = [
        f"| [{name}](#{name}) | {_points(costs[name])} | {one['samples_per_second']:g} | {one['samples']} |"
        for name, one in whole.items()
    ]
    return "\n".join(
        [
            "Whole samples a second and core at the defaults of each problem, all levels as they come: drawn, solved,"
            f" verified and stacked to a batch, so many at once, on {'; '.join(sorted(machines))}"
            " (`python docs/make_gallery.py --throughput`).",
            "",
            "| problem | a sample | samples a second and core | at once |",
            "|---|---|--:|--:|",
            *rows,
        ]
    )


def _points(cost: dict[str, Any]) -> str:
    shape = " x ".join(map(str, cost["shape"]))
    return f"{shape} points" + (f", {cost['times']} output times" if cost["times"] > 1 else "")


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in text.splitlines())


def page() -> str:
    """The page.

    Raises:
        ValueError: a problem has not been drawn yet.
    """
    costs = json.loads((FOLDER / "costs.json").read_text())
    if missing := [
        name for name in problems() if "defaults" not in costs.get(name, {}) or not (FOLDER / f"{name}.webp").exists()
    ]:
        raise ValueError(
            f"no picture or figures of {', '.join(missing)}: run python docs/make_gallery.py {' '.join(missing)}"
        )
    machines = {f"measured on one thread of {one['processor']} on {one['date']}" for one in costs.values()}
    entries = [_entry(name, kind, costs[name]) for name, kind in problems().items()]
    introduction = INTRODUCTION.format(measured="; ".join(sorted(machines)), table=_table(costs))
    return "\n\n".join([introduction, *entries]) + "\n"

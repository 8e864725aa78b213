"""The reference of commands: made from the command line itself."""

import click
from words import cell, code, escaped

from headrace.pipelines.cli import main

INTRODUCTION = """# Commands

This page is made from the command line itself; `headrace COMMAND --help` says the same. With `--json` a command prints
one JSON object last. Exit status: 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted. A `RECIPE` is a
file, or the name of a recipe that comes with Headrace (`headrace list recipes`); a `RUN` is the folder of a run.
"""


def _default(option: click.Parameter) -> str:
    value = option.default
    if option.required:
        return "**required**"
    return code(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def _section(name: str, command: click.Command, context: click.Context) -> str:
    inner = click.Context(command, info_name=name, parent=context)
    usage = " ".join(["headrace", name, *command.collect_usage_pieces(inner)])
    lines = [f"## {name}", escaped(command.help or ""), f"```text\n{usage}\n```"]
    options = [one for one in command.get_params(inner) if isinstance(one, click.Option) and "--help" not in one.opts]
    if options:
        rows = ["| option | default | |", "|---|---|---|"]
        for one in options:
            takes = "" if one.is_flag else f" {one.make_metavar(inner)}"
            rows.append(f"| {code(', '.join(one.opts) + takes)} | {_default(one)} | {cell(one.help or '')} |")
        lines.append("\n".join(rows))
    return "\n\n".join(line for line in lines if line)


def page() -> str:
    """The page."""
    context = click.Context(main, info_name="headrace")
    sections = [_section(name, command, context) for name, command in sorted(main.commands.items())]
    before = "Before the command: `headrace --verbose COMMAND` shows the log, `headrace --version` the version.\n"
    return "\n\n".join([INTRODUCTION, before, *sections]) + "\n"

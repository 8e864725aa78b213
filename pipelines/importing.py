"""`headrace import`: says what it understood of files, then makes data sets of them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from headrace.pipelines.answers import Answer, console
from headrace.pipelines.command_group import as_json

if TYPE_CHECKING:
    from headrace.surrogates.intake.examining import Understood


_NAMED = "NAME[=ARRAY]"
_OPTIONS = (
    click.option("--layout", "file", type=click.Path(path_type=Path), help="YAML file that says what options would."),
    click.option(
        "--input", multiple=True, metavar=_NAMED, help="A field that is given; ARRAY is its path in the file."
    ),
    click.option("--output", multiple=True, metavar=_NAMED, help="A field to predict."),
    click.option("--state", multiple=True, metavar=_NAMED, help="A field at all times: the first is given."),
    click.option("--parameter", multiple=True, metavar=_NAMED, help="Numbers of each sample."),
    click.option(
        "--axes", multiple=True, metavar="[NAME=]AXES", help="Of all arrays, or of a field's: sample,time,channel,x,y."
    ),
    click.option("--channels", multiple=True, metavar="NAME=0,1", help="The entries of the channel axis of a field."),
    click.option("--unit", multiple=True, metavar="NAME=UNIT", help="The unit of a field."),
    click.option("--times", metavar="TIMES", help="Numbers, or the array that holds them."),
    click.option("--dt", type=float, help="Distance of the times; states begin at 0."),
    click.option("--coordinates", metavar="ARRAYS", help="Arrays with the coordinates along each grid axis."),
    click.option("--extent", metavar="LENGTHS", help="Of each grid axis: 1,1."),
    click.option("--periodic", metavar="AXES", help="Which wrap around: x,y, or all, or none."),
    click.option("--location", help="Where values stand: nodes (both ends are points) or cells."),
    click.option("--index", metavar="ARRAY", help="Array with the index of each sample."),
    click.option("--split", metavar="SHARES", help="Of train, validation and test: 0.8,0.1,0.1, by trajectory."),
    click.option("--seed", type=int, help="Of that draw; 0 when left out."),
)


def _layout_options[Function: Callable[..., Any]](command: Function) -> Function:
    """Give a command the options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("import")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "format_name", help="Default: by the files' ending, and what stands in them.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the data sets; must be new.")
@click.option("--as", "name", help="What to call the data set; --out may then hold others.")
@click.option("--resolution", help="Which of several training and validation files to take: 16 for train_16.")
@_layout_options
@as_json
def import_(
    sources: tuple[Path, ...],
    format_name: str | None,
    out: Path,
    name: str | None,
    resolution: str | None,
    **options: Any,
) -> Answer:
    """Take in data that others made: a file, a folder of files, or several files of one array each.

    What files do not say themselves is given by options or by a YAML file; docs/my-data.md tells how.
    """
    from headrace.pipelines.interchange import import_data
    from headrace.pipelines.layout_options import read_layout

    understood: list[Understood] = []

    def tell(one: "Understood") -> None:
        understood.append(one)
        for words in (_table(one), *_lines(one)):
            console.print(words, highlight=False, soft_wrap=isinstance(words, Text))

    sets = import_data(sources, format_name, out, read_layout(options), name=name, resolution=resolution, tell=tell)
    words = [f"{out / name}: {size} samples" for name, size in sets.items()]
    roles = {name.split("_")[0] for name in sets}
    hints = (
        []
        if {"train", "test"} <= roles or name
        else ["`headrace train` needs a train and a test set: --split 0.8,0.1,0.1"]
    )
    data = {"out": str(out), "sets": sets, "fields": [vars(line) for one in understood for line in one.fields]}
    return Answer(words=words, warnings=hints, data=data)


def _table(one: "Understood") -> Table:
    files = ", ".join(one.files[:3]) + (f" and {len(one.files) - 3} more" if len(one.files) > 3 else "")
    table = Table(title=Text(files), title_justify="left")
    for column in ("field", "is", "array", "shape", "unit"):
        table.add_column(column, overflow="fold")
    for column in ("smallest", "largest"):
        table.add_column(column, justify="right")
    for line in one.fields:
        cells = (line.name, line.role, line.array, line.shape, line.unit, f"{line.smallest:.4g}", f"{line.largest:.4g}")
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _lines(one: "Understood") -> list[Text]:
    rows = {
        "grid": one.grid,
        "times": one.times,
        "data sets": ", ".join(f"{name} {count}" for name, count in one.sets.items()),
    }
    return [Text.assemble((f"{name:<10}", "bold"), f" {value}") for name, value in rows.items()] + [
        Text.assemble(("note      ", "bold"), f" {note}") for note in one.notes
    ]

"""The command line: `headrace run RECIPE` and its companions.

Exit status: 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted.
"""

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from headrace.pipelines.summary import RunSummary
from headrace.platform.errors import HeadraceError, InputError

console = Console()
errors = Console(stderr=True)


class HeadraceGroup(click.Group):
    """A group of commands whose errors are told to a person, or to a program with `--json`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether a program reads the answer, before the command itself is known."""
        ctx.meta["headrace.json"] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn what a user can act on into words and an exit status."""
        try:
            return super().invoke(ctx)
        except HeadraceError as error:
            if ctx.meta["headrace.json"]:
                faults = [vars(fault) for fault in error.faults] if isinstance(error, InputError) else []
                click.echo(json.dumps({"error": str(error), "faults": faults}))
            lines = [str(fault) for fault in error.faults] if isinstance(error, InputError) else [str(error)]
            for line in lines:
                errors.print("[bold red]error[/]", end=" ")
                errors.print(line, markup=False, highlight=False, soft_wrap=True)
            ctx.exit(error.exit_status)
        except KeyboardInterrupt:
            errors.print("interrupted; what was stored is safe", highlight=False)
            ctx.exit(130)


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
recipe_argument = click.argument("recipe")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE ...]")
out_option = click.option("--out", type=click.Path(path_type=Path), help="Folder for the results; must be new.")


@click.group(cls=HeadraceGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--verbose", "-v", is_flag=True, help="Show the log, not only warnings.")
@click.version_option(package_name="headrace")
def main(verbose: bool) -> None:
    """Train PDE surrogates on samples that solvers stream while the training runs."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("headrace").setLevel(logging.INFO if verbose else logging.WARNING)


def _warn_ignored(recipe: str, overrides: tuple[str, ...], command: Any) -> None:
    from headrace.pipelines.recipe.config import ignored_sections, parse, read_recipe

    ignored = ignored_sections(parse(read_recipe(recipe), recipe, overrides), command)
    if ignored:
        errors.print(f"{command} does not use the recipe's {', '.join(ignored)}", highlight=False)


def _result(summary: RunSummary, run: Path) -> dict[str, Any]:
    keys = ("status", "errors", "seconds", "samples", "training", "cost", "tracking")
    written = summary.to_json()
    return {"run": str(run)} | {key: written[key] for key in keys if key in written}


def _show_errors(levels: Mapping[str, Mapping[str, Any]]) -> None:
    if not levels:
        return
    table = Table(title="Held-out errors (mean ± standard deviation)", title_justify="left")
    table.add_column("level")
    for name in ("samples", "relative L2", "95th percentile", "relative H1", "VRMSE"):
        table.add_column(name, justify="right")
    for level, values in levels.items():
        if level != "all" and len(levels) == 2 and "all" in levels:
            continue  # the only one: said already
        l2, h1, vrmse = values["relative_l2"], values["relative_h1"], values["vrmse"]
        table.add_row(
            level,
            str(values["count"]),
            f"{l2['mean']:.4f} ± {l2['std']:.4f}",
            f"{l2['p95']:.4f}",
            f"{h1['mean']:.4f}",
            f"{vrmse['mean']:.4f}",
        )
    console.print(table)


def _show_run(summary: RunSummary, run: Path, json_wanted: bool) -> None:
    num = summary.samples
    _show_errors(summary.errors)
    rows = {
        "samples": f"{num.stored} stored, {num.failed} failed, {num.duplicates} duplicates dropped",
        "seconds": f"{summary.seconds:.0f}",
        "report": str(run / "report.html"),
        "checkpoint": str(run / "checkpoints" / "last.pt"),
        "data set": str(run / "data"),
        "MLflow": summary.tracking.url or "off",
    }
    for name, value in rows.items():
        if name in ("report", "checkpoint", "data set") and not Path(value).exists():
            continue
        console.print(f"[bold]{name:<10}[/] {value}", highlight=False, soft_wrap=True)
    if json_wanted:
        click.echo(json.dumps(_result(summary, run), default=str))


@main.command()
@recipe_argument
@overrides_argument
@out_option
@as_json
def run(recipe: str, overrides: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Stream, train and evaluate: the whole recipe."""
    from headrace.pipelines.recipe.config import load
    from headrace.pipelines.running import generate as generating
    from headrace.pipelines.running import online

    config = load(recipe, overrides, "run")
    carry_out = generating.generate if config.stream.mode == "generate" else online.run
    session = carry_out(config, out, console)
    _show_run(session.summary, session.run.path, as_json)


@main.command()
@recipe_argument
@overrides_argument
@as_json
def check(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say everything that is wrong with a recipe; start nothing."""
    from headrace.pipelines.recipe.config import load

    config = load(recipe, overrides)
    assert config.data is not None
    is_known = config.data.num_training is not None
    planned = config.planned() if is_known else f"as many samples as {config.data.budget:g} solver seconds buy"
    console.print(f"{recipe} is right: {config.name}, {planned}", highlight=False)
    if as_json:
        click.echo(json.dumps({"recipe": recipe, "faults": []}))


@main.command()
@recipe_argument
@overrides_argument
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the data; must be new.")
@as_json
def generate(recipe: str, overrides: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Solve the recipe's samples and store them; no training."""
    from headrace.pipelines.recipe.config import load
    from headrace.pipelines.running import generate as generating

    session = generating.generate(load(recipe, overrides, "generate"), out, console)
    _show_run(session.summary, session.run.path, as_json)


@main.command()
@recipe_argument
@overrides_argument
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of generated or imported data.")
@out_option
@as_json
def train(recipe: str, overrides: tuple[str, ...], data: Path, out: Path | None, as_json: bool) -> None:
    """Train on stored data."""
    from headrace.pipelines.recipe.config import load
    from headrace.pipelines.running import train as training

    config = load(recipe, overrides, "train")
    _warn_ignored(recipe, overrides, "train")
    session = training.train(config, data, out, console)
    _show_run(session.summary, session.run.path, as_json)


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@overrides_argument
@as_json
def resume(run_dir: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Go on with a run after a crash; only resources and tracking may change."""
    from headrace.pipelines.run_dir import RunDir
    from headrace.pipelines.running.resume import resume as go_on

    session = go_on(run_dir, overrides, console)
    run = RunDir.open(run_dir)
    if session is None:
        console.print(f"{run.path.name} is finished: nothing to do", highlight=False)
    _show_run(run.read_summary(), run.path, as_json)


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--follow", is_flag=True, help="Show it anew every second until the run has ended.")
@as_json
def status(run_dir: Path, follow: bool, as_json: bool) -> None:
    """Show how far a run is; it may be at work."""
    from headrace.pipelines.report import status as looking
    from headrace.pipelines.run_dir import RunDir

    run = RunDir.open(run_dir)
    if follow:
        found = looking.watch(run, console)
    else:
        found = looking.status(run)
        console.print(looking.show(found))
    if as_json:
        click.echo(json.dumps(found))


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("changes", nargs=-1, required=True, metavar="solvers=NUMBER")
@as_json
def scale(run_dir: Path, changes: tuple[str, ...], as_json: bool) -> None:
    """Have more or fewer solver actors in a run that is at work."""
    from headrace.pipelines.run_dir import RunDir
    from headrace.pipelines.scale import scale as ask_for

    solvers = ask_for(RunDir.open(run_dir), changes)
    console.print(f"{run_dir}: {solvers} solver actors from now on", highlight=False)
    if as_json:
        click.echo(json.dumps({"run": str(run_dir), "solvers": solvers}))


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8100, show_default=True, help="0 takes any that is free.")
def dashboard(run_dir: Path, host: str, port: int) -> None:
    """Serve a page that shows how a run goes; Ctrl-C ends it."""
    from headrace.pipelines.report.dashboard import serve
    from headrace.pipelines.run_dir import RunDir

    server = serve(RunDir.open(run_dir), host, port)
    console.print(f"http://{host}:{server.server_address[1]}  (Ctrl-C ends it)", highlight=False)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Other held-out data; default: the run's own test set.")
@as_json
def evaluate(run_dir: Path, data: Path | None, as_json: bool) -> None:
    """Score a run's checkpoint on held-out data."""
    from headrace.pipelines.run_dir import RunDir
    from headrace.pipelines.running import evaluate as evaluating

    found = RunDir.open(run_dir)
    result = evaluating.evaluate(found, None if data is None else evaluating.held_out_sets(data))
    _show_errors(result["levels"])
    if as_json:
        click.echo(json.dumps({"run": str(found.path), "errors": result["levels"]}))


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@as_json
def report(run_dir: Path, as_json: bool) -> None:
    """Write a run's HTML report anew."""
    from headrace.pipelines.report.report import write_report
    from headrace.pipelines.run_dir import RunDir

    path = write_report(RunDir.open(run_dir).path)
    click.echo(json.dumps({"report": str(path)}) if as_json else str(path))


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("input_file", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where the prediction goes (.npy or .npz).")
@as_json
def predict(run_dir: Path, input_file: Path, out: Path, as_json: bool) -> None:
    """Apply a run's surrogate to inputs from a file (.npy, .npz or HDF5)."""
    from headrace.pipelines.predict import predict_file
    from headrace.pipelines.run_dir import RunDir

    shape = predict_file(RunDir.open(run_dir), input_file, out)
    console.print(f"{out}: {shape} (samples, times, channels, grid)", highlight=False, soft_wrap=True)
    if as_json:
        click.echo(json.dumps({"out": str(out), "shape": list(shape)}))


@main.command()
@recipe_argument
@overrides_argument
@click.option("--address", required=True, help="The cluster's dashboard: http://HOST:8265.")
@click.option("--out", help="Folder that all nodes of the cluster share; default: below runs/ in its user's home.")
@as_json
def submit(recipe: str, overrides: tuple[str, ...], address: str, out: str | None, as_json: bool) -> None:
    """Run a recipe as a job on a Ray cluster and follow it."""
    from headrace.pipelines.submit import submit_run

    job, status = submit_run(recipe, overrides, address, out, lambda text: click.echo(text, nl=False))
    if as_json:
        click.echo(json.dumps({"job": job, "status": status}))
    else:
        console.print(f"job {job}: {status}", highlight=False)
    if status != "SUCCEEDED":
        sys.exit(1)


@main.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--format", "format_name", required=True, help="One of those that `headrace list formats` shows.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the files; must be new.")
@as_json
def export(directory: Path, format_name: str, out: Path, as_json: bool) -> None:
    """Write data sets as files that other programs load."""
    from headrace.pipelines.interchange import export_data

    files = export_data(directory, format_name, out)
    click.echo(json.dumps({"files": [str(file) for file in files]}) if as_json else "\n".join(map(str, files)))


@main.command("import")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--format", "format_name", help="Default: by the files' ending.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the data sets; must be new.")
@as_json
def import_(source: Path, format_name: str | None, out: Path, as_json: bool) -> None:
    """Take in data that others made: a file, or a folder of files."""
    from headrace.pipelines.interchange import import_data

    sets = import_data(source, format_name, out)
    for name, size in sets.items():
        console.print(f"{out / name}: {size} samples", highlight=False, soft_wrap=True)
    if as_json:
        click.echo(json.dumps({"out": str(out), "sets": sets}))


@main.command("list")
@click.argument("what", required=False)
@as_json
def list_(what: str | None, as_json: bool) -> None:
    """Show what there is: problems, solvers, samplers, surrogates, losses, strategies, formats, recipes, and so on."""
    from headrace.pipelines.recipe.catalogue import catalogue
    from headrace.platform.spec import broken_plug_ins

    listing = catalogue(what)
    for plug_in in broken_plug_ins():
        errors.print(str(plug_in), markup=False, highlight=False, soft_wrap=True)
    if as_json:
        click.echo(json.dumps(listing))
        return
    width = max(len(kind) for entries in listing.values() for kind in entries)
    for name, entries in listing.items():
        console.print(f"[bold]{name}[/]")
        for kind, line in entries.items():
            console.print(f"  {kind:<{width}}  {line}", highlight=False, soft_wrap=True)


@main.command()
def schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    from headrace.pipelines.recipe.config import RunConfig

    click.echo(json.dumps(RunConfig.model_json_schema(), indent=2))


@main.command()
@click.option("--uri", help="Tracking store; default: MLFLOW_TRACKING_URI, else runs/mlflow.db.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True)
def ui(uri: str | None, host: str, port: int) -> None:
    """Serve the MLflow page of the runs; Ctrl-C ends it."""
    import os

    from headrace.platform.tracking.tracker import TrackingSpec, ui_command

    command = ui_command(TrackingSpec(uri=uri), host=host, port=port)
    # In this process's place: who ends it, by whatever signal, ends the server.
    os.execvp(command[0], command)


@main.command()
@as_json
def doctor(as_json: bool) -> None:
    """Tell what works here, and what to do about the rest."""
    from headrace.pipelines.doctor.doctor import examine

    findings = examine()
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings]))
    else:
        marks = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}
        table = Table(box=None, show_header=False, pad_edge=False)
        for finding in findings:
            table.add_row(marks[finding.status], finding.name, finding.detail, finding.advice)
        console.print(table)
    sys.exit(1 if any(finding.status == "fail" for finding in findings) else 0)


if __name__ == "__main__":
    main(prog_name="headrace")

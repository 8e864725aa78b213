"""The command line: `headrace run RECIPE` and its companions.

Exit status: 0 done, 1 the run failed, 2 the input is wrong, 130 interrupted.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from headrace.pipelines.answers import Answer, console, errors_table, notes, run_answer, warn
from headrace.pipelines.command_group import HeadraceGroup, as_json
from headrace.pipelines.doctor.doctor import examine
from headrace.pipelines.importing import import_
from headrace.pipelines.report import status as looking
from headrace.pipelines.report.dashboard import serve
from headrace.pipelines.run_dir import RunDir
from headrace.pipelines.scaffold import write_package
from headrace.pipelines.scale import scale as ask_for
from headrace.platform.spec import broken_plug_ins
from headrace.platform.tracking.tracker import TrackingSpec
from headrace.platform.tracking.ui import charts_page, ui_command
from headrace.surrogates.capabilities import MODEL_FORMATS

LONG = ("run", "generate", "train", "resume")  # commands that say what they wait for

recipe_argument = click.argument("recipe")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE ...]")
out_option = click.option("--out", type=click.Path(path_type=Path), help="Folder for the results; must be new.")


@click.group(cls=HeadraceGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--verbose", "-v", is_flag=True, help="Show the log, not only warnings.")
@click.version_option(package_name="headrace")
@click.pass_context
def main(ctx: click.Context, verbose: bool) -> None:
    """Train PDE surrogates on samples that solvers stream while the training runs."""
    if ctx.invoked_subcommand in LONG and not ctx.meta["headrace.help"]:
        # At once: what comes next takes a second to import.
        console.print("reading the recipe", highlight=False)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("headrace").setLevel(logging.INFO if verbose else logging.WARNING)


def _warn_ignored(recipe: str, overrides: tuple[str, ...], command: Any) -> None:
    from headrace.pipelines.recipe.config import ignored_sections, parse, read_recipe

    ignored = ignored_sections(parse(read_recipe(recipe), recipe, overrides), command)
    if ignored:
        warn(f"{command} does not use the recipe's {', '.join(ignored)}")


@main.command()
@recipe_argument
@overrides_argument
@out_option
@as_json
def run(recipe: str, overrides: tuple[str, ...], out: Path | None) -> Answer:
    """Stream, train and evaluate: the whole recipe."""
    from headrace.pipelines.recipe.cautions import cautions
    from headrace.pipelines.recipe.config import load
    from headrace.pipelines.running import generate as generating
    from headrace.pipelines.running import online

    config = load(recipe, overrides, "run")
    carry_out = generating.generate if config.stream.mode == "generate" else online.run
    for caution in cautions(config):
        warn(f"caution: {caution}")
    session = carry_out(config, out, console)
    return run_answer(session.summary, session.run.path)


@main.command()
@recipe_argument
@overrides_argument
@out_option
@click.option("--data", type=click.Path(path_type=Path), help="Folder of stored data that it shall train on.")
@click.option("--pilots", is_flag=True, help="Solve a few samples, thrown away, to learn what all will cost.")
@as_json
def check(recipe: str, overrides: tuple[str, ...], out: Path | None, data: Path | None, pilots: bool) -> Answer:
    """Say everything that is wrong with a recipe, and what it will take; start nothing."""
    from headrace.pipelines.check import check_recipe

    return check_recipe(recipe, overrides, console, data=data, out=out, pilots=pilots)


@main.command()
@recipe_argument
@overrides_argument
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the data; must be new.")
@as_json
def generate(recipe: str, overrides: tuple[str, ...], out: Path) -> Answer:
    """Solve the recipe's samples and store them; no training."""
    from headrace.pipelines.recipe.cautions import cautions
    from headrace.pipelines.recipe.config import load
    from headrace.pipelines.running import generate as generating

    config = load(recipe, overrides, "generate")
    for caution in cautions(config):
        warn(f"caution: {caution}")
    session = generating.generate(config, out, console)
    return run_answer(session.summary, session.run.path)


@main.command()
@recipe_argument
@overrides_argument
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of generated or imported data.")
@out_option
@as_json
def train(recipe: str, overrides: tuple[str, ...], data: Path, out: Path | None) -> Answer:
    """Train on stored data."""
    from headrace.pipelines.recipe.config import load
    from headrace.pipelines.running import train as training

    config = load(recipe, overrides, "train")
    _warn_ignored(recipe, overrides, "train")
    session = training.train(config, data, out, console)
    return run_answer(session.summary, session.run.path)


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@overrides_argument
@as_json
def resume(run_dir: Path, overrides: tuple[str, ...]) -> Answer:
    """Go on with a run after a crash; only resources and tracking may change."""
    from headrace.pipelines.running.resume import resume as go_on

    session = go_on(run_dir, overrides, console)
    run = RunDir.open(run_dir)
    first = f"{run.path.name} is finished: nothing to do" if session is None else ""
    return run_answer(run.read_summary(), run.path, first)


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--follow", is_flag=True, help="Show it anew every second until the run has ended.")
@as_json
def status(run_dir: Path, follow: bool) -> Answer:
    """Show how far a run is; it may be at work."""
    run = RunDir.open(run_dir)
    if follow:
        return Answer(data=looking.watch(run, console))
    found = looking.status(run)
    return Answer(words=[looking.show(found)], data=found)


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("changes", nargs=-1, required=True, metavar="solvers=NUMBER")
@as_json
def scale(run_dir: Path, changes: tuple[str, ...]) -> Answer:
    """Have more or fewer solver actors in a run that is at work."""
    solvers = ask_for(RunDir.open(run_dir, writes=True), changes)
    words = f"{run_dir}: {solvers} solver actors from now on"
    return Answer(words=[words], data={"run": str(run_dir), "solvers": solvers})


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8100, show_default=True, help="0 takes any that is free.")
def dashboard(run_dir: Path, host: str, port: int) -> None:
    """Serve a page that shows how a run goes; Ctrl-C ends it."""
    server = serve(RunDir.open(run_dir), host, port)
    click.echo(f"http://{host}:{server.server_address[1]}  (Ctrl-C ends it)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="Other held-out data; default: the run's own test set.")
@as_json
def evaluate(run_dir: Path, data: Path | None) -> Answer:
    """Score a run's checkpoint on held-out data."""
    from headrace.pipelines.running import evaluate as evaluating

    found = RunDir.open(run_dir, writes=True)
    result = evaluating.evaluate(found, None if data is None else evaluating.held_out_sets(data))
    told = {"run": str(found.path), "errors": result["levels"], "notes": result["notes"]}
    return Answer(words=[*errors_table(result["levels"]), *notes(result["notes"])], data=told)


@main.command()
@click.argument("run_dir", metavar="RUN", type=click.Path(path_type=Path))
@as_json
def report(run_dir: Path) -> Answer:
    """Write a run's HTML report anew."""
    from headrace.pipelines.report.report import write_report

    path = write_report(RunDir.open(run_dir, writes=True).path)
    return Answer(words=[str(path)], data={"report": str(path)}, instead=True)


@main.command()
@click.argument("model", metavar="RUN")
@click.argument("input_file", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new .npz, .npy, .h5 or .nc file.")
@click.option("--times", help="Output times, as in 0.1,0.5; default: all that it was trained on.")
@click.option("--strict", is_flag=True, help="Refuse what is outside of what training saw, or not known to be inside.")
@click.option("--tracking-uri", help="Where a models:/ or runs:/ model is; default: MLFLOW_TRACKING_URI.")
@click.option("--certify", is_flag=True, help="Put the predictions into their equation: residuals, or defects in time.")
@click.option("--to-rtol", type=float, help="With --certify: solve from the predictions on to this relative residual.")
@click.option("--level", help="With --certify: the difficulty level whose problem it is, where those of a run differ.")
@as_json
def predict(
    model: str,
    input_file: Path,
    out: Path,
    times: str | None,
    strict: bool,
    tracking_uri: str | None,
    certify: bool,
    to_rtol: float | None,
    level: str | None,
) -> Answer:
    """Apply a surrogate to a file of inputs (.npz, .npy, .h5, .nc); RUN may be a checkpoint or an MLflow model, too."""
    from headrace.pipelines.certify import certifier
    from headrace.pipelines.predict import predict_file

    check = certifier(model, console, asked=certify, times=times, to_rtol=to_rtol, level=level)
    done = predict_file(model, input_file, out, times=times, strict=strict, tracking_uri=tracking_uri, certify=check)
    words = [f"{out}: {name} {shape} ({axes})" for name, (shape, axes) in done.shapes.items()]
    words += () if done.certified is None else done.certified.words
    shapes = {name: list(shape) for name, (shape, _) in done.shapes.items()}
    data = {
        "out": str(out),
        "shape": next(iter(shapes.values())),
        "shapes": shapes,
        "outside_training": int(done.outside.samples.sum()),
        "reasons": list(done.outside.reasons),
        "range_is_known": done.outside.is_known,
        "certified": None if done.certified is None else done.certified.summary,
    }
    return Answer(words=words, warnings=done.warnings, data=data)


@main.command()
@recipe_argument
@overrides_argument
@click.option("--address", required=True, help="The cluster's dashboard: http://HOST:8265.")
@click.option("--out", help="Folder that all nodes of the cluster share; default: below runs/ in its user's home.")
@as_json
def submit(recipe: str, overrides: tuple[str, ...], address: str, out: str | None) -> Answer:
    """Run a recipe as a job on a Ray cluster and follow it."""
    from headrace.pipelines.submit import submit_run

    job, status = submit_run(recipe, overrides, address, out, lambda text: click.echo(text, nl=False))
    data = {"job": job, "status": status}
    return Answer(words=[f"job {job}: {status}"], data=data, instead=True, status=0 if status == "SUCCEEDED" else 1)


@main.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_name",
    required=True,
    help="Of data: one that `headrace list formats` shows; of a trained model: onnx, torch-export, aoti, torchscript.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the files; must be new.")
@click.option("--precision", type=click.Choice(["float32", "float64"]), default="float32", help="Of a model's numbers.")
@click.option("--grid", help="Points that a model shall take, as in 64x64; default: those of its training.")
@as_json
def export(directory: Path, format_name: str, out: Path, precision: str, grid: str | None) -> Answer:
    """Write data sets, or a trained model (of a run, or a checkpoint), as files that other programs load."""
    if format_name in MODEL_FORMATS:
        from headrace.pipelines.portable import export_trained

        return export_trained(directory, format_name, out, precision, grid)
    from headrace.pipelines.interchange import export_data

    files = [str(file) for file in export_data(directory, format_name, out)]
    return Answer(words=files, data={"files": files}, instead=True)


main.add_command(import_)


@main.command()
@click.argument("name")
@as_json
def init(name: str) -> Answer:
    """Write a package with a problem, an equation, a network, a loss, a strategy and a sampler to begin from."""
    files = [str(path) for path in write_package(name, Path())]
    words = f"\nNow: cd {name} && pip install -e . && headrace check recipe.yaml && pytest"
    return Answer(words=[*files, words], data={"package": name, "files": files})


@main.command("list")
@click.argument("what", required=False)
@as_json
def list_(what: str | None) -> Answer:
    """Show what there is: problems, solvers, samplers, surrogates, losses, strategies, formats, recipes, and so on."""
    from headrace.pipelines.recipe.catalogue import catalogue

    listing = catalogue(what)
    width = max(len(kind) for entries in listing.values() for kind in entries)
    words: list[RenderableType] = []
    for name, entries in listing.items():
        words += [Text(name, style="bold"), *(f"  {kind:<{width}}  {line}" for kind, line in entries.items())]
    return Answer(words=words, warnings=[str(one) for one in broken_plug_ins()], data=listing, instead=True)


@main.command()
def schema() -> Answer:
    """Print the JSON Schema of a recipe, for editors."""
    from headrace.pipelines.recipe.config import RunConfig

    return Answer(words=[json.dumps(RunConfig.model_json_schema(), indent=2)])


@main.command()
@click.option("--uri", help="Tracking store; default: MLFLOW_TRACKING_URI, else runs/mlflow.db.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=5000, show_default=True)
def ui(uri: str | None, host: str, port: int) -> None:
    """Serve the MLflow page of the runs; Ctrl-C ends it."""
    spec = TrackingSpec(uri=uri)
    command = ui_command(spec, host=host, port=port)
    console.out(f"runs and charts: {charts_page(spec, host, port)}", highlight=False)
    # In this process's place: who ends it, by whatever signal, ends the server.
    os.execvp(command[0], command)


@main.command()
@as_json
def doctor() -> Answer:
    """Tell what works here, and what to do about the rest."""
    findings = examine()
    marks = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "fail": "[red]fail[/]"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        table.add_row(marks[finding.status], finding.name, finding.detail, finding.advice)
    status = 1 if any(finding.status == "fail" for finding in findings) else 0
    return Answer(words=[table], data=[vars(finding) for finding in findings], instead=True, status=status)


if __name__ == "__main__":
    main(prog_name="headrace")

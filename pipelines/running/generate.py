"""`headrace generate`: a data set without a training."""

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from rich.console import Console

from headrace.pipelines.recipe.config import RunConfig
from headrace.pipelines.running.label_errors import say_label_errors
from headrace.pipelines.running.numerics import with_needed
from headrace.pipelines.running.online import POLL_SECONDS, StreamWatch, preflight_stream, start_stream
from headrace.pipelines.running.pilots import settled
from headrace.pipelines.running.progress import RunProgress
from headrace.pipelines.running.session import CONNECTING, Earlier, Session, require_room
from headrace.platform.cluster.cluster import connected, fit_into_cluster, starting_phase
from headrace.platform.errors import InputError


def generate(config: RunConfig, out: Path | Earlier | None, console: Console) -> Session:
    """Solve every planned sample of every split and store it below `out/data`.

    Raises:
        InputError: the output folder, the tracking server or the cluster cannot be used; nothing was started.
        RunFailed: a solver failed; what was stored is safe and readable.
    """
    if config.stream.mode == "replay":
        raise InputError.single("stream.mode", "replay", "online or generate, to make a data set")
    preflight_stream(config, out)
    # One that is gone on with has them in its recipe, or is from before there were any.
    pilots = settled(config if isinstance(out, Earlier) else with_needed(config), console)
    config = pilots.config
    say_label_errors(pilots.label_errors, config, console)
    require_room(config, out)
    assert config.data is not None
    with RunProgress(console) as progress, ExitStack() as cluster:
        progress.update(phase=starting_phase(config.resources), planned=config.planned()["train"])
        began = time.monotonic()
        cluster.enter_context(connected(config.resources))
        resources = fit_into_cluster(config.resources, partial(progress.tell_waits, "the run"), trains=False)
        session = Session(config, "generate", out)
        session.account(CONNECTING, time.monotonic() - began)
        with session.guarded(), session.phase("generate"):
            session.describe(config.schema, pilots)
            progress.update(phase="planning the samples")
            stream = start_stream(config, session, resources, trains=False)
            watch = StreamWatch(stream, session, progress, resources)
            progress.update(phase="starting the solvers")
            interrupted, began = False, time.monotonic()
            try:
                while stream.poll(POLL_SECONDS):
                    watch.look()
                    if progress.state.stored:
                        if progress.state.phase != "solving":
                            session.account("start, until the first samples were stored", time.monotonic() - began)
                        progress.update(phase="solving")
            except KeyboardInterrupt:
                interrupted = True
                session.note_interrupt()
                raise
            finally:
                watch.settle(seal=not interrupted)
    return session

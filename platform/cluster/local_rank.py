"""LocalRank: one training rank in a process of its own on this machine, without Ray."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from headrace.platform.cluster.rank import MetricsReport, RankContext, has_ended
from headrace.platform.cluster.resources import MAX_RESTARTS, THREAD_VARIABLES, Capacity, ResourcePlan, ResourcesSpec
from headrace.platform.errors import HeadraceError, RunFailed, storage_refusal

log = logging.getLogger(__name__)


def needs_no_cluster(spec: ResourcesSpec) -> bool:
    """Whether a training on stored data can do without one: one rank, and no cluster is named."""
    return spec.trainers.ranks == 1 and not (spec.address or os.environ.get("RAY_ADDRESS"))


def machine_capacity() -> Capacity:
    """What this process may use of this machine."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = len([number for number in visible.split(",") if number.strip() not in ("", "-1", "NoDevFiles")])
    else:
        gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    return Capacity(cpus=(float(cpus),), gpus=(float(gpus),))


class LocalRank:
    """A training rank as a child process, seen from the driver. One that dies is started anew, as `TrainingRanks` does.

    A thread reads what it tells. It ends when this process does, however that ends.

    Attributes:
        needs: what it asks of the machine, in words.
        num_started: how often it has started.
    """

    def __init__(self, loop: Callable[[RankContext, Any], None], job: object, plan: ResourcePlan) -> None:
        """Start `loop(context, job)`."""
        self._loop, self._job, self._plan = loop, job, plan
        self.needs = f"{plan.rank_threads} thread(s) of this machine"
        self.num_started = 0
        self._given_up: str | None = None
        self._reports: list[MetricsReport] = []
        self._process: multiprocessing.process.BaseProcess | None = None
        self._future: Future[None] = Future()
        # A process that starts another one imports the program's main module again, from the main thread's point of
        # view at any time: the first is started here, later ones by the thread.
        pipe = self._start()
        threading.Thread(target=self._look_after, args=(pipe,), name="local-rank", daemon=True).start()

    def drain(self) -> list[MetricsReport]:
        """The reports since the last call."""
        count = len(self._reports)
        taken = self._reports[:count]
        del self._reports[:count]
        return taken

    def give_up(self, reason: str) -> None:
        """End the process, and let no other take its place."""
        self._given_up = reason
        if self._process is not None:
            self._process.kill()

    def wait(self, seconds: float) -> bool:
        """Wait for the rank to end, at most for a while; return whether it has ended.

        Raises:
            RunFailed: it failed; the message holds its own error.
        """
        return has_ended(self._future, seconds)

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(theirs, self._loop, self._job, self._plan.rank_gpus > 0), name="rank-0", daemon=True
        )
        # Ctrl-C reaches all processes of a terminal: what becomes of this one is ours to say. It inherits the mask,
        # which the helper of `multiprocessing` would take off if it were not there yet.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            with _threads(self._plan.rank_threads):
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._process = process
        return ours

    def _look_after(self, pipe: Connection) -> None:
        try:
            for attempt in range(1 + MAX_RESTARTS):
                if attempt:
                    pipe = self._start()
                told, final = self._listen(pipe)
                if told is None:
                    self._future.set_result(None)
                    return
                if final or attempt == MAX_RESTARTS:
                    raise RunFailed(f"training failed: rank 0: {told}")
                if self._given_up is not None:
                    raise RunFailed(f"training failed: {self._given_up}")
                log.warning("training starts anew from the newest checkpoint: %s", told)
        except BaseException as error:  # the future carries it to the main thread
            self._future.set_exception(error)

    def _listen(self, pipe: Connection) -> tuple[str | None, bool]:
        """Take reports until the process ends; what went wrong, and whether it would again."""
        assert self._process is not None
        ended = False
        try:
            while True:
                match pipe.recv():
                    case "started":
                        self.num_started += 1
                    case "done":
                        ended = True
                    case (str() as told, bool() as final):
                        return told, final
                    case report:
                        self._reports.append(report)
        except (EOFError, OSError):
            self._process.join()
        finally:
            pipe.close()
            self._process.join(10)
        return (None, False) if ended else (f"its process ended with status {self._process.exitcode}", False)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """Thread counts in the environment, for a process that starts in the block and reads them as its libraries load."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(number)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(pipe: Connection, loop: Callable[[RankContext, Any], None], job: object, on_gpu: bool) -> None:
    """The child: runs the loop, and tells the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    lock = threading.Lock()

    def send(message: object) -> None:
        with lock:
            pipe.send(message)

    send("started")
    context = RankContext(
        rank=0,
        world_size=1,
        node="",
        accelerator="gpu" if on_gpu else "cpu",
        address="127.0.0.1",
        port=0,
        send=send,
    )
    try:
        loop(context, job)
    except Exception as error:
        traceback.print_exc(file=sys.stderr) if not isinstance(error, HeadraceError) else None
        is_final = isinstance(error, HeadraceError) or storage_refusal(error) is not None
        send((str(error) or type(error).__name__, is_final))
        raise SystemExit(1) from None
    send("done")


def _end_with_parent() -> None:
    """Have this process ended when its parent ends, killed or not."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, name="parent", daemon=True).start()

"""What a user sees while a run goes on: bars on a terminal, a line now and then elsewhere."""

import logging
import time
from collections import deque
from dataclasses import dataclass, replace
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What is known of a run at one moment; None where nothing is known yet."""

    phase: str = "starting"
    stored: int = 0
    failed: int = 0
    planned: int = 0
    samples_per_second: float | None = None
    fill: float | None = None
    reuse: float | None = None
    step: int = 0
    steps: int = 0
    loss: float | None = None
    error: float | None = None
    seconds_left: float | None = None
    waits: tuple[tuple[str, str], ...] = ()

    def line(self) -> str:
        """The state in one line."""
        parts = [self.phase]
        if self.planned:
            parts.append(f"{self.stored}/{self.planned} samples")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.samples_per_second is not None:
            parts.append(_rate(self.samples_per_second))
        if self.fill is not None:
            parts.append(f"reservoir {100 * self.fill:.0f} % full")
        if self.reuse is not None:
            parts.append(f"each used {self.reuse:.1f}x")
        if self.steps:
            parts.append(f"step {self.step}/{self.steps}")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4f}")
        if self.error is not None:
            parts.append(f"validation error {self.error:.4f}")
        if self.seconds_left is not None:
            parts.append(f"{self.seconds_left:.0f} s left")
        parts.extend(f"{who} {what}" for who, what in self.waits)
        return " · ".join(parts)


class Pace:
    """How many come a second, as a mean over the last minute: trajectories of a batch end all at once."""

    seconds_back = 60.0

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int]] = deque()

    def __call__(self, now: float, count: int) -> float | None:
        """Note how many there are at a time [s]; how many a second it has been, None at first."""
        self._looks.append((now, count))
        while len(self._looks) > 2 and self._looks[1][0] <= now - self.seconds_back:
            self._looks.popleft()
        began, first = self._looks[0]
        return (count - first) / (now - began) if now > began else None


class RunProgress:
    """Shows a run's state. Use as a context manager."""

    seconds_between_lines = 15.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self.state = RunState()
        self._last_line = 0.0
        self._live: Live | None = None
        columns = (
            TextColumn("[bold]{task.description:<9}"),
            BarColumn(bar_width=40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bars = Progress(*columns, TimeRemainingColumn(), console=console)
        self._samples: TaskID | None = None
        self._steps: TaskID | None = None

    def __enter__(self) -> "RunProgress":
        if self._console.is_terminal:
            self._live = Live(self._view(), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, **changes: object) -> None:
        """Change the state and show it."""
        before = self.state
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]
        if self._live is not None:
            self._live.update(self._view())
            return
        is_news = self.state.phase != before.phase or dict(self.state.waits).keys() != dict(before.waits).keys()
        if is_news or time.monotonic() - self._last_line > self.seconds_between_lines:
            self._last_line = time.monotonic()
            self._console.print(self.state.line(), highlight=False)

    def tell_waits(self, who: str, what: str) -> None:
        """Show what a part of the run waits for; an empty word when it waits no more."""
        waits = {**dict(self.state.waits), who: what}
        self.update(waits=tuple((who, what) for who, what in waits.items() if what))

    def _view(self) -> Group:
        state = self.state
        if state.planned:
            if self._samples is None:
                self._samples = self._bars.add_task("samples", total=state.planned, note="")
            rate = "" if state.samples_per_second is None else _rate(state.samples_per_second)
            failed = f" {state.failed} failed" if state.failed else ""
            self._bars.update(self._samples, completed=state.stored, total=state.planned, note=rate + failed)
        if state.steps:
            if self._steps is None:
                self._steps = self._bars.add_task("training", total=state.steps, note="")
            loss = "waiting for samples" if state.loss is None else f"loss {state.loss:.4f}"
            error = "" if state.error is None else f" · validation error {state.error:.4f}"
            self._bars.update(self._steps, completed=state.step, total=state.steps, note=loss + error)
        notes = [state.phase]
        if state.fill is not None:
            notes.append(f"reservoir {100 * state.fill:.0f} % full")
        if state.reuse is not None:
            notes.append(f"each sample used {state.reuse:.1f} times so far")
        notes.extend(f"{who} {what}" for who, what in state.waits)
        return Group(self._bars, Text(" · ".join(notes), style="dim"))


def _rate(samples_per_second: float) -> str:
    return f"{samples_per_second:.{0 if samples_per_second >= 10.0 else 1}f} solved/s"

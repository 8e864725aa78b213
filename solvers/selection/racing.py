"""Racing methods against each other on the systems of a run, within an allowance, and the account of what it cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Share of all time that trying others may cost beyond what the leader would have taken, and, in solves of the leader,
# what may be spent at once: auto stays within about 1.04 of its leader, whatever it tries.
_ALLOWANCE, _ADVANCE = 0.03, 1.0
# What the first solve of a method is expected to cost on top, in solves of the leader: patterns, orderings, workspaces.
_FIRST = 1.0
# Solves that count: old ones say little about the systems of today.
_WINDOW = 16
# A solve that takes longer than this many means is other people's load, or one hard system: it counts as so many.
_CLIP = 3.0
# Slower than the leader by this factor: out after the first try, which may hold set-up and nothing recycled yet, after
# a second, or after more.
_HOPELESS = (8.0, 2.0, 1.5)
# Solves until a leader that was overtaken gets another chance: one quick solve may have been luck.
_REMATCH = 8
# Tries in the last round of halving, and solves of the leader until one that was dropped is looked at again.
_LAST_ROUND, _PATIENCE = 4, 64


@dataclass(slots=True)
class _Arm:
    """What the race knows of one method: the mean seconds of settled solves, and the `estimate` of a sample's.

    The estimate is None before the first try, and infinite when all tries failed.
    """

    prior: float
    set_up: float
    first: float | None = None
    mean: float = 0.0
    settled: int = 0
    failed_seconds: float = 0.0
    failures: int = 0
    tries: int = 0
    alive: bool = True
    patience: int = _PATIENCE
    due: int = 0
    estimate: float | None = None

    def succeed(self, seconds: float) -> None:
        """Take the time of a solve that was accepted."""
        if self.first is None:
            self.first = seconds
        else:
            self.settled += 1
            most = _CLIP * self.mean if self.settled > 1 else seconds
            # A mean of all solves until the window is full, and then one that forgets; a few additions a solve.
            self.mean += (min(seconds, most) - self.mean) / min(self.settled, _WINDOW)
        self.update()

    def doubt(self) -> None:
        """Let the next solve replace the mean: it was measured on another day."""
        if self.settled:
            self.first, self.settled, self.mean = self.mean, 0, 0.0
        self.update()

    def fail(self, seconds: float) -> None:
        """Take the time of a solve that was not."""
        self.failures += 1
        self.failed_seconds += seconds
        self.update()

    def update(self) -> None:
        """Bring the estimate up to date."""
        mean = self.mean if self.settled else self.first
        if mean is None:
            self.estimate = math.inf if self.failures else None
        else:
            self.estimate = mean + self.failed_seconds / min(self.settled + 1, _WINDOW)


class Race:
    """Which of several methods to give the next system to: successive halving on an allowance, then vigilance.

    Successive halving (Karnin, Koren & Somekh, "Almost optimal exploration in multi-armed bandits", ICML 2013;
    Jamieson & Talwalkar 2016): every method that is left solves 1, then 2, then 4 systems, and after each round the
    slower half goes. Nothing is solved twice, and every solve that succeeds is a sample. We differ from it:

    * A try must be affordable. What it is expected to cost beyond the leader has to fit into 3 % of the time spent so
      far; until then the leader goes on. So methods that are thought to be slow are tried late, or in a short sequence
      never, and the sum is bounded whatever the tries bring.
    * The first solve of a method is not held against it, unless it is hopeless: it contains set-up that depends on the
      grid alone, and a method that recycles has nothing to recycle yet.
    * Machines are not always as busy as they were. When the leader takes longer than another one once did, that one
      gets the next system, and becomes the leader if it still is the faster one. Who was the leader before may try
      again after 8 solves, and so on with growing patience.
    * One that was dropped is looked at again after 64 solves of the leader, then after 128 and so on, and means forget
      what is more than some 16 solves old: so the race notices when the systems change.

    Most picks and outcomes change nothing, and small systems take less than a millisecond: what a pick looks for is
    not looked for again before it can have come.

    Args:
        priors: what a solve of each method is expected to cost before it is known, the first method's being 1.
        set_ups: what comes on top of that in its first solve; not given, nothing that is worth to be known.
    """

    def __init__(self, priors: Sequence[float], set_ups: Sequence[float] = ()) -> None:
        self._arms = [_Arm(*given) for given in zip(priors, set_ups or [0.0] * len(priors), strict=True)]
        self._round, self._leader = 1, 0
        self._total = self._excess = 0.0
        # Who was the leader before, when it gets another chance, and how long the next one waits for it.
        self._rematch: int | None = None
        self._rematch_at, self._rematch_patience = 0, _REMATCH
        # Solves of leaders, and the estimate at which the leader is not the leader any more.
        self._num_led, self._runner_up = 0, math.inf
        # Until so many of those, or seconds in all, no pick goes to anyone else.
        self._quiet_solves, self._quiet_seconds = 0, 0.0
        self.over = len(self._arms) < 2

    def estimates(self) -> list[float | None]:
        """Seconds per accepted sample of each method; None for those that were not tried."""
        return [arm.estimate for arm in self._arms]

    @property
    def leader(self) -> int:
        """The method with the least seconds per accepted sample."""
        return self._leader

    def _update(self) -> None:
        if len(self._arms) < 2:
            return
        known = [(arm.estimate, j) for j, arm in enumerate(self._arms) if arm.estimate is not None]
        least, leader = min(known, default=(0.0, 0))
        if not math.isfinite(least):
            # Nothing has worked so far: the one that failed least, untried ones first.
            leader = min(range(len(self._arms)), key=lambda j: (self._arms[j].failures, j))
        if leader != self._leader and math.isfinite(least):
            self._rematch, self._rematch_at = self._leader, self._num_led + self._rematch_patience
            self._rematch_patience = min(2 * self._rematch_patience, _PATIENCE)
        self._leader = leader
        self._runner_up = min((estimate for estimate, j in known if j != leader), default=math.inf)
        # Whoever calls this has news.
        self._quiet_solves = 0

    def pick(self) -> int:
        """The method that gets the next system."""
        if len(self._arms) < 2:
            return 0
        leader = self._leader
        if self._num_led < self._quiet_solves and self._total < self._quiet_seconds:
            return leader
        lead = self._arms[leader].estimate
        if lead is None or not math.isfinite(lead) or not self._arms[leader].settled:
            return leader
        if self._rematch is not None and self._num_led >= self._rematch_at:
            k, self._rematch = self._rematch, None
            estimate = self._arms[k].estimate
            if k != leader and estimate is not None and estimate < _HOPELESS[-1] * lead:
                self._arms[k].doubt()
                self._quiet_solves = 0
                return k
        # While others still race, nobody comes back: the round would not end.
        if self.over:
            for arm in self._arms:
                if not arm.alive and arm is not self._arms[leader] and self._num_led >= arm.due:
                    arm.alive, arm.tries = True, 0
                    arm.patience *= 2
                    arm.failures, arm.failed_seconds = 0, 0.0
                    arm.doubt()
                    if arm.estimate is not None:
                        self._runner_up = min(self._runner_up, arm.estimate)
        rivals = [k for k, arm in enumerate(self._arms) if arm.alive and k != leader and arm.tries <= self._round]
        self._quiet_seconds = math.inf
        for k in sorted(rivals, key=lambda k: (self._arms[k].tries, self._expected(k, lead))):
            excess = max(self._expected(k, lead) - lead, 0.0)
            if self._excess + excess <= _ALLOWANCE * self._total + _ADVANCE * lead:
                self._quiet_solves = 0
                return k
            affordable = (self._excess + excess - _ADVANCE * lead) / _ALLOWANCE
            self._quiet_seconds = min(self._quiet_seconds, affordable)
        # Estimates change a little all the time: no longer than for some solves.
        self._quiet_solves = self._num_led + _WINDOW
        if self._rematch is not None:
            self._quiet_solves = min(self._quiet_solves, self._rematch_at)
        if self.over:
            waiting = [arm.due for k, arm in enumerate(self._arms) if not arm.alive and k != leader]
            self._quiet_solves = min([self._quiet_solves, *waiting])
        return leader

    def learn(self, k: int, seconds: float, accepted: bool) -> bool:
        """Take the outcome of a solve; return whether it was a try of one that was not thought the fastest."""
        leader = self._leader
        lead = self._arms[leader].estimate
        tried = k != leader
        arm = self._arms[k]
        # The very first solve may hold imports and compilation, which are no income.
        self._total += seconds if arm.first is not None or self._total else 0.0
        arm.tries += 1
        if tried and lead is not None and math.isfinite(lead):
            self._excess += max(seconds - lead * accepted, 0.0)
        self._num_led += not tried
        if not accepted:
            arm.fail(seconds)
            if tried:
                self._rest(arm)
        else:
            arm.succeed(seconds)
            if not tried and arm.estimate is not None:
                if arm.estimate >= self._runner_up and arm.settled:
                    self._ask_again()
                return tried
        self._update()
        if tried or not self.over:
            self._drop(k)
        return tried

    def revoke(self, k: int, seconds: float) -> None:
        """A solve that `learn` was told to be accepted turned out not to be."""
        arm = self._arms[k]
        if arm.settled > 1:
            arm.mean = max(arm.mean * arm.settled - seconds, 0.0) / (arm.settled - 1)
            arm.settled -= 1
        else:
            arm.first, arm.settled, arm.mean = None, 0, 0.0
        arm.fail(seconds)
        self._update()

    def _ask_again(self) -> None:
        """Let the runner-up prove itself: it may be an old time of a calmer machine that makes it look better."""
        known = [arm for k, arm in enumerate(self._arms) if k != self._leader and arm.estimate is not None]
        arm = min(known, key=lambda arm: arm.estimate or 0.0)
        arm.doubt()
        arm.alive, arm.tries, self._quiet_solves = True, 0, 0

    def _rest(self, arm: _Arm) -> None:
        arm.alive, arm.due = False, self._num_led + arm.patience

    def _expected(self, k: int, lead: float) -> float:
        """What the next solve of a method costs."""
        arm = self._arms[k]
        if arm.estimate is None or not math.isfinite(arm.estimate):
            return (arm.prior + (arm.set_up + _FIRST) * (arm.first is None)) * lead
        # The first solve says little about the next if it held a set-up that was expected.
        return arm.estimate if arm.settled or not arm.set_up else min(arm.prior * lead, arm.estimate)

    def _drop(self, k: int) -> None:
        leader = self._leader
        lead = self._arms[leader].estimate
        if lead is None or not math.isfinite(lead):
            return
        arm, estimate = self._arms[k], self._arms[k].estimate
        limit = _HOPELESS[min(arm.settled, 2)]
        if not arm.settled and arm.set_up:
            limit = math.inf
        if k != leader and estimate is not None and estimate > limit * lead:
            self._rest(arm)
        left = [j for j, other in enumerate(self._arms) if other.alive or j == leader]
        # The leader is measured all the time; the others have to have had their tries, and one more, their first.
        if all(j == leader or self._arms[j].tries > self._round for j in left):
            order = sorted(left, key=lambda j: self._expected(j, lead))
            for j in order[math.ceil(len(order) / 2) :]:
                self._rest(self._arms[j])
            self._round = 1 if len(order) <= 2 or self._round >= _LAST_ROUND else 2 * self._round
            self.over = self.over or self._round == 1

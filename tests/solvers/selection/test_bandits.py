"""Racing, Tsallis-INF and ChebCB on made-up seconds: the best arm is found, regret stays small, drift is noticed."""

from collections.abc import Callable

import numpy as np
import pytest

from headrace.solvers.selection.bandits import ChebCB, TsallisINF
from headrace.solvers.selection.racing import Race
from headrace.solvers.systems.selection_report import ArmReport, SelectionReport

type Seconds = Callable[[int], list[float]]


def run_race(seconds: Seconds, rounds: int, priors: list[float], fails: frozenset[int] = frozenset()) -> tuple[
    float, list[int]
]:  # fmt: skip
    """The time spent on `rounds` systems with 10 % of noise, and who solved each."""
    race, rng = Race(priors), np.random.default_rng(0)
    spent, picked = 0.0, []
    for number in range(rounds):
        arm = race.pick()
        taken = seconds(number)[arm] * rng.lognormal(0.0, 0.1)
        race.learn(arm, taken, arm not in fails)
        spent += taken
        picked.append(arm)
    return spent, picked


@pytest.mark.parametrize("costs", [[1.0, 1.3], [1.3, 1.0], [3.0, 1.0, 2.0], [1.0, 4.0, 6.0, 40.0], [2.0, 1.0, 30.0]])
def test_the_race_stays_close_to_the_best_arm(costs: list[float]) -> None:
    spent, picked = run_race(lambda _: costs, 1000, [1.0, *[2.0] * (len(costs) - 1)])
    assert picked[0] == 0, "the first system goes to the first choice"
    assert picked[-1] == int(np.argmin(costs))
    # 3 % for trying, a solve or two of the slowest that nobody expected, and the way there.
    assert spent < 1.1 * 1000 * min(costs)


def test_what_cannot_be_afforded_is_not_tried() -> None:
    _, picked = run_race(lambda _: [1.0, 1.0], 100, [1.0, 10.0])
    assert 1 not in picked
    _, picked = run_race(lambda _: [1.0, 1.0], 400, [1.0, 10.0])
    assert 1 in picked


def test_failed_tries_are_few_and_a_failing_first_choice_is_left_at_once() -> None:
    _, picked = run_race(lambda _: [1.0, 1.0], 200, [1.0, 1.0], fails=frozenset({1}))
    assert picked.count(1) <= 3
    _, picked = run_race(lambda _: [1.0, 5.0], 50, [1.0, 1.0], fails=frozenset({0}))
    assert picked[0] == 0 and picked.count(0) <= 3


def test_the_race_notices_when_the_leader_slows_down() -> None:
    spent, picked = run_race(lambda t: [1.0, 2.0] if t < 300 else [6.0, 2.0], 600, [1.0, 1.0])
    assert picked[299] == 0 and picked[-1] == 1
    # Half of the window of 16 is enough to tell.
    assert spent < 1.1 * (300 * 1.0 + 300 * 2.0)


def test_the_race_notices_when_another_speeds_up() -> None:
    _, picked = run_race(lambda t: [2.0, 3.0] if t < 100 else [2.0, 1.0], 600, [1.0, 1.0])
    assert picked[-1] == 1


def test_a_first_solve_with_set_up_inside_is_not_held_against_a_method() -> None:
    race = Race([1.0, 1.0])
    for _ in range(3):
        race.learn(0, 1.0, True)
    race.learn(1, 6.0, True)
    race.learn(1, 0.5, True)
    assert race.leader == 1


def test_an_old_time_of_a_calmer_machine_makes_no_leader() -> None:
    # From here on everything takes 1.5 times as long: the others were measured before, the leader is measured now.
    _, picked = run_race(lambda t: [1.0, 1.2, 1.3] if t < 200 else [1.5, 1.8, 1.95], 600, [1.0, 1.0, 1.0])
    assert picked[200:].count(0) > 380


def test_a_set_up_that_is_expected_is_paid_for_when_the_sequence_is_long_enough() -> None:
    race, picked = Race([1.0, 1.0], [0.0, 30.0]), list[int]()
    for _ in range(1500):
        arm = race.pick()
        race.learn(arm, 1.0 if arm == 0 else 0.5 + 30.0 * (1 not in picked), True)
        picked.append(arm)
    # 3 % of the time until then is what it costs.
    assert 900 < picked.index(1) < 1100
    assert picked[-1] == 1 and picked.count(1) > 300


def test_tsallis_inf_weights_are_a_distribution_that_prefers_small_losses() -> None:
    bandit = TsallisINF(3, np.random.default_rng(0))
    bandit._losses = np.array([0.0, 50.0, 1e6])
    weights = bandit._weights(0.1)
    assert weights.sum() == pytest.approx(1.0) and np.all(np.diff(weights) < 0) and weights.min() > 0
    # The condition that defines them: η (L - x) √w = 2 for one x.
    x = bandit._losses - 2.0 / (0.1 * np.sqrt(weights))
    np.testing.assert_allclose(x, x[0], rtol=1e-6)


def regret(losses: Seconds, rounds: int, num_arms: int) -> float:
    """Loss beyond that of the best fixed arm."""
    bandit, table, spent = TsallisINF(num_arms, np.random.default_rng(1)), np.zeros(num_arms), 0.0
    for number in range(rounds):
        arm = bandit.pick()
        loss = losses(number)
        bandit.learn(arm, loss[arm])
        spent += loss[arm]
        table += loss
    return spent - float(table.min())


def test_tsallis_inf_has_little_regret() -> None:
    # Theorem 1 of Zimmert & Seldin: at most 4 √(K T) + 1 whatever the losses, here 269 and 219.
    steady = regret(lambda _: [0.2, 0.5, 0.6], 1500, 3)
    assert steady < 80, "with i.i.d. losses it grows with the logarithm"
    assert regret(lambda t: [0.1, 0.6] if (t // 100) % 2 else [0.7, 0.2], 1500, 2) < 4 * np.sqrt(2 * 1500) + 1


def test_cheb_cb_learns_which_arm_is_better_where() -> None:
    rng = np.random.default_rng(2)
    bandit = ChebCB(2, [0.0, -1.0], [1.0, 1.0], rng)
    right = []
    for _ in range(500):
        context = rng.uniform([0.0, -1.0], [1.0, 1.0])
        arm = bandit.pick(context)
        # One arm suffers from the first coordinate; the second one is of no consequence.
        loss = [np.exp(context[0]), np.exp(0.5)][arm] * rng.lognormal(0.0, 0.05)
        bandit.learn(arm, context, float(np.log(loss)))
        right.append(arm == int(context[0] > 0.5))
    assert np.mean(right[200:]) > 0.9
    np.testing.assert_allclose(bandit.predict(np.array([0.2, 0.3])), [0.2, 0.5], atol=0.1)
    assert bandit.probabilities.sum() == pytest.approx(1.0)


def test_cheb_cb_takes_a_context_that_never_changes_or_lies_outside() -> None:
    bandit = ChebCB(2, [3.0], [3.0], np.random.default_rng(0))
    for _ in range(50):
        arm = bandit.pick(np.array([3.0]))
        bandit.learn(arm, np.array([99.0]), [1.0, 0.0][arm])
    assert bandit.probabilities[1] > 0.9


def test_the_account_of_a_run_adds_up() -> None:
    fast = ArmReport(label="fast", solves=9, accepted=8, seconds=10.0, settled=7, settled_seconds=7.0)
    slow = ArmReport(label="slow", solves=2, accepted=2, seconds=6.0, settled=1, settled_seconds=3.0, exploring=2)
    one = SelectionReport(strategy="race", arms=[fast, slow], warm_up_seconds=1.0)
    assert fast.seconds_per_accepted == pytest.approx(9 / 8), "a failed solve costs its time and makes no sample"
    assert (one.accepted, one.seconds, one.winner) == (10, 16.0, "fast")
    assert one.regret_seconds == pytest.approx(16.0 - 10 * 9 / 8)
    both = SelectionReport.merged([one, SelectionReport.from_json(one.to_json())])
    assert both is not None and (both.accepted, both.warm_up_seconds) == (20, 2.0)
    assert both.regret_seconds == pytest.approx(2 * one.regret_seconds)
    assert SelectionReport.merged([]) is None
    assert SelectionReport(strategy="race", arms=[]).to_json()["best_fixed"] == {}


def test_methods_are_compared_on_one_kind_of_systems() -> None:
    quick = ArmReport(
        label="quick", systems="easy", solves=10, accepted=10, seconds=1.0, settled=9, settled_seconds=0.9
    )
    works = ArmReport(label="works", systems="hard", solves=4, accepted=4, seconds=8.0, settled=3, settled_seconds=6.0)
    whole = SelectionReport.merged([SelectionReport(strategy="race", arms=[arm]) for arm in (quick, works)])
    assert whole is not None
    assert whole.regret_seconds == pytest.approx(0.0), "what never saw hard systems is no alternative for them"
    assert whole.to_json()["best_fixed"] == {"easy": "quick", "hard": "works"}
    again = SelectionReport.merged([whole, whole])
    assert again is not None and [arm.accepted for arm in again.arms] == [20, 8]

"""Fitting a run into a cluster: pure arithmetic, no Ray."""

import pytest

from headrace.platform.cluster.resources import Capacity, ResourcesSpec, fit_resources
from headrace.platform.errors import InputError

LAPTOP = Capacity(cpus=(2.0,), gpus=(0.0,))
NODES = Capacity(cpus=(64.0, 64.0, 64.0, 64.0), gpus=(4.0, 4.0, 4.0, 4.0))


def spec(**sections: object) -> ResourcesSpec:
    return ResourcesSpec.model_validate(sections)


def test_the_defaults_fit_a_laptop_and_leave_nothing_out() -> None:
    plan = fit_resources(spec(), LAPTOP)
    assert (plan.num_solvers, plan.num_ranks, plan.rank_gpus, plan.rank_threads) == (1, 1, 0.0, 2)
    assert plan.num_solvers * plan.solver_cpus + plan.num_ranks * plan.rank_cpus <= 2.0


def test_the_same_recipe_fills_gpu_nodes() -> None:
    plan = fit_resources(spec(trainers={"ranks": 16}), NODES)
    assert plan.rank_gpus == 1.0
    assert plan.num_solvers == 256 - 16
    assert plan.solver_cpus == 1.0


@pytest.mark.parametrize("actors", [1, 2, 3, 7])
@pytest.mark.parametrize("ranks", [1, 2])
def test_shares_that_are_left_open_fit_together(actors: int, ranks: int) -> None:
    plan = fit_resources(spec(solvers={"actors": actors}, trainers={"ranks": ranks}), LAPTOP)
    assert actors * plan.solver_cpus + ranks * plan.rank_cpus <= 2.0
    assert plan.solver_cpus >= 0.05


def test_generating_needs_no_ranks_and_training_no_solvers() -> None:
    assert fit_resources(spec(), LAPTOP, trains=False).num_ranks == 0
    assert fit_resources(spec(), LAPTOP, trains=False).num_solvers == 2
    assert fit_resources(spec(), LAPTOP, solves=False).num_solvers == 0


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"solvers": {"actors": 8, "cpus": 1}}, "that need 8 CPUs; expected at most 2 CPUs"),
        ({"solvers": {"actors": 1000}}, "1000 solver actors and 1 training ranks"),
        ({"trainers": {"gpus": 1}}, "1 GPUs for solvers and trainers; expected at most 0"),
        ({"solvers": {"actors": 2, "gpus": 0.5}}, "1 GPUs for solvers and trainers"),
    ],
)
def test_asking_for_more_than_there_is_gets_an_answer(sections: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match="resources is") as caught:
        fit_resources(spec(**sections), LAPTOP)
    assert words in str(caught.value)


def test_a_rank_must_fit_on_one_node() -> None:
    with pytest.raises(InputError, match="the largest has 64 CPUs"):
        fit_resources(spec(solvers={"actors": 1}, trainers={"cpus": 65}), NODES)


def test_threads_share_a_node_between_its_ranks() -> None:
    assert fit_resources(spec(trainers={"ranks": 16}), NODES).rank_threads == 8
    assert fit_resources(spec(trainers={"ranks": 2}), Capacity(cpus=(8.0,), gpus=(0.0,))).rank_threads == 4
    assert fit_resources(spec(trainers={"ranks": 1, "threads": 3}), NODES).rank_threads == 3


def test_a_cluster_that_is_too_small_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.platform.cluster import cluster

    sizes = iter([1.0, 1.0, 4.0])
    monkeypatch.setattr(cluster, "_capacity", lambda: Capacity(cpus=(next(sizes),), gpus=(0.0,)))
    monkeypatch.setattr(cluster, "SECONDS_BETWEEN_LOOKS", 0.01)
    spec = ResourcesSpec.model_validate({"solvers": {"actors": 3, "cpus": 1.0}, "trainers": {"cpus": 1.0}})
    told: list[str] = []
    plan = cluster.fit_into_cluster(spec.model_copy(update={"wait_seconds": 60.0}), told.append)
    assert plan.num_solvers == 3
    assert len(told) == 3 and told[-1] == "" and "at most 1 CPUs" in told[0]
    sizes = iter([1.0])
    with pytest.raises(InputError, match="at most 1 CPUs"):
        cluster.fit_into_cluster(spec, told.append)

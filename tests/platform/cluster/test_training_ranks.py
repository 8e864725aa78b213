"""Groups of training ranks: what they tell, how they end, and that one which dies starts anew."""

import errno
import os
import time
from pathlib import Path

import psutil
import pytest

from headrace.platform.cluster.local_rank import LocalRank, machine_capacity, needs_no_cluster
from headrace.platform.cluster.rank import MetricsReport, RankContext, Ranks
from headrace.platform.cluster.resources import MAX_RESTARTS, ResourcePlan, ResourcesSpec, TrainerResources
from headrace.platform.cluster.training_ranks import TrainingRanks
from headrace.platform.errors import RunFailed


def plan(ranks: int = 1) -> ResourcePlan:
    return ResourcePlan(
        num_solvers=0,
        solver_cpus=1.0,
        solver_gpus=0.0,
        solver_threads=1,
        num_ranks=ranks,
        rank_cpus=0.1,
        rank_gpus=0.0,
        rank_threads=3,
        placement="pack",
    )


def attempts(folder: Path) -> int:
    """Count one more attempt."""
    count = len(list(folder.iterdir()))
    (folder / str(count)).touch()
    return count


def reports(context: RankContext, folder: Path) -> None:
    context.report(1, {"threads": float(os.environ["OMP_NUM_THREADS"])})
    context.report(None, {"world": float(context.world_size)})


def dies_once(context: RankContext, folder: Path) -> None:
    if attempts(folder) == 0:
        os._exit(9)
    context.report(7, {})


def always_dies(context: RankContext, folder: Path) -> None:
    attempts(folder)
    os._exit(9)


def is_wrong(context: RankContext, folder: Path) -> None:
    attempts(folder)
    raise RunFailed("the loss is not finite at step 3")


def is_full(context: RankContext, folder: Path) -> None:
    attempts(folder)
    raise OSError(28, "No space left on device")


def is_read_only(context: RankContext, folder: Path) -> None:
    attempts(folder)
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), "/run/checkpoints/.step-3.pt")


def is_forbidden(context: RankContext, folder: Path) -> None:
    attempts(folder)
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/run/checkpoints/.step-3.pt")


def is_over_quota(context: RankContext, folder: Path) -> None:
    attempts(folder)
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


def stumbles_once(context: RankContext, folder: Path) -> None:
    if attempts(folder) == 0:
        raise ConnectionError("a shard was lost")


def goes_on(context: RankContext, folder: Path) -> None:
    attempts(folder)
    time.sleep(300)


def end_of(ranks: Ranks) -> list[MetricsReport]:
    found = []
    while not ranks.wait(0.2):
        found += ranks.drain()
    return found + ranks.drain()


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def start(request: pytest.FixtureRequest) -> type[LocalRank] | type[TrainingRanks]:
    """Either way of running one rank: they promise the same."""
    if request.param == "local":
        return LocalRank
    request.getfixturevalue("ray_cluster")
    return TrainingRanks


type Start = type[LocalRank] | type[TrainingRanks]


class TestEitherWay:
    def test_reports_arrive_in_order_and_none_is_lost(self, start: Start, tmp_path: Path) -> None:
        ranks = start(reports, tmp_path, plan())
        found = end_of(ranks)
        assert [report.step for report in found] == [1, None]
        assert found[0].metrics == {"threads": 3.0} and found[1].metrics == {"world": 1.0}
        assert ranks.num_started == 1

    def test_one_that_dies_starts_anew(self, start: Start, tmp_path: Path) -> None:
        ranks = start(dies_once, tmp_path, plan())
        assert [report.step for report in end_of(ranks)] == [7]
        assert ranks.num_started == 2

    def test_so_does_one_that_lost_something(self, start: Start, tmp_path: Path) -> None:
        end_of(start(stumbles_once, tmp_path, plan()))
        assert len(list(tmp_path.iterdir())) == 2

    def test_it_starts_anew_three_times(self, start: Start, tmp_path: Path) -> None:
        with pytest.raises(RunFailed, match="training failed: rank 0"):
            end_of(start(always_dies, tmp_path, plan()))
        assert len(list(tmp_path.iterdir())) == 1 + MAX_RESTARTS

    @pytest.mark.parametrize(
        ("loop", "words"),
        [
            (is_wrong, "not finite at step 3"),
            (is_full, "No space left"),
            (is_read_only, "Read-only file system: '.*step-3"),
            (is_forbidden, "Permission denied: '.*step-3"),
            (is_over_quota, "Disk quota exceeded"),
        ],
    )
    def test_what_would_happen_again_is_not_tried_again(
        self, start: Start, tmp_path: Path, loop: object, words: str
    ) -> None:
        with pytest.raises(RunFailed, match=f"training failed: rank 0: .*{words}"):
            end_of(start(loop, tmp_path, plan()))  # type: ignore[arg-type]
        assert len(list(tmp_path.iterdir())) == 1

    def test_no_other_takes_the_place_of_one_that_was_given_up(self, start: Start, tmp_path: Path) -> None:
        ranks = start(always_dies, tmp_path, plan())
        ranks.give_up("the run was interrupted")
        with pytest.raises(RunFailed, match="interrupted"):
            end_of(ranks)
        assert len(list(tmp_path.iterdir())) <= 1


def test_a_local_rank_that_is_given_up_ends_at_once(tmp_path: Path) -> None:
    ranks = LocalRank(goes_on, tmp_path, plan())
    while not list(tmp_path.iterdir()):
        time.sleep(0.05)
    began = time.monotonic()
    ranks.give_up("the run was interrupted")
    with pytest.raises(RunFailed, match="interrupted"):
        ranks.wait(10.0)
    assert time.monotonic() - began < 5.0


LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def sums(context: RankContext, folder: Path) -> None:
    import torch
    from pytorch_lightning import Trainer

    from headrace.surrogates.process_group import StartedRanks, strategy_for

    environment = StartedRanks(
        rank=context.rank, world_size=context.world_size, address=context.address, port=context.port
    )
    trainer = Trainer(
        accelerator="cpu",
        devices="auto",
        strategy=strategy_for(context.world_size, on_gpu=False),
        plugins=[environment],
        logger=False,
        enable_checkpointing=False,
    )
    trainer.strategy.setup_environment()
    total = torch.tensor([1.0 + context.rank])
    torch.distributed.all_reduce(total)
    if attempts(folder / str(context.rank)) == 0 and context.rank == 1:
        os._exit(9)
    torch.distributed.barrier()
    open_ports = [one.laddr.ip for one in psutil.Process().net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    elsewhere = torch.tensor([float(sum(address not in LOOPBACK for address in open_ports))])
    torch.distributed.all_reduce(elsewhere)
    context.report(int(total), {"ports": float(len(open_ports)), "elsewhere": float(elsewhere)})


@pytest.mark.ray
def test_two_ranks_find_each_other_and_so_do_those_that_take_their_place(ray_cluster: None, tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    ranks = TrainingRanks(sums, tmp_path, plan(ranks=2))
    # Rank 0 of the first group waits at a barrier for the other, which has died by then.
    [found] = end_of(ranks)
    assert found.step == 3
    assert found.metrics["elsewhere"] == 0.0 < found.metrics["ports"], "ranks of one machine meet on loopback alone"
    assert ranks.num_started == 4


class TestWithoutACluster:
    def test_one_rank_needs_none_unless_one_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        assert needs_no_cluster(ResourcesSpec())
        assert not needs_no_cluster(ResourcesSpec(address="auto"))
        assert not needs_no_cluster(ResourcesSpec(trainers=TrainerResources(ranks=2)))
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
        assert not needs_no_cluster(ResourcesSpec())

    def test_the_machine_counts_what_this_process_may_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
        assert machine_capacity().gpus == (2.0,)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert machine_capacity().gpus == (0.0,)
        assert machine_capacity().cpus == (float(len(os.sched_getaffinity(0))),)

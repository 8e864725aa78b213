"""How training ranks that somebody else has started find each other: what Lightning needs to know."""

import atexit
import os
import socket
import sys

import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch.distributed import TCPStore  # type: ignore[attr-defined]

_LOOPBACK = "lo"


class StartedRanks(ClusterEnvironment):
    """Ranks that were started one by one, each of which sees only its own device.

    So each counts as a node of its own, with one rank. Nothing is looked for in the environment: a Slurm job's numbers,
    say, are those of the job that Headrace runs in, and not of its ranks.
    """

    def __init__(self, *, rank: int, world_size: int, address: str, port: int) -> None:
        """Note the place.

        Args:
            rank: which rank this is.
            world_size: how many there are.
            address: of rank 0, where the others find it.
            port: on which rank 0 listens.
        """
        super().__init__()
        self._rank, self._world_size, self._address, self._port = rank, world_size, address, port

    @property
    def creates_processes_externally(self) -> bool:
        """They have been started."""
        return True

    @property
    def main_address(self) -> str:
        """Rank 0's."""
        return self._address

    @property
    def main_port(self) -> int:
        """Rank 0's."""
        return self._port

    @staticmethod
    def detect() -> bool:
        """Nothing in the environment tells: it is asked for."""
        return False

    def world_size(self) -> int:
        """How many ranks there are."""
        return self._world_size

    def set_world_size(self, size: int) -> None:
        """Nothing: it is known."""

    def global_rank(self) -> int:
        """Which rank this is."""
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        """Nothing: it is known."""

    def local_rank(self) -> int:
        """The first on its node, always."""
        return 0

    def node_rank(self) -> int:
        """Each is its own node."""
        return self._rank


class MeetingRanks(DDPStrategy):
    """DDP whose ranks meet at rank 0's address alone; torch by itself listens on all addresses of that machine."""

    def setup_distributed(self) -> None:
        """Start the process group, which Lightning then finds started."""
        place = self.cluster_environment
        if isinstance(place, StartedRanks) and not torch.distributed.is_initialized():
            backend = self._get_process_group_backend()
            if backend == "gloo" and _is_loopback(place.main_address):
                # Gloo by itself listens where the host's name leads.
                os.environ.setdefault("GLOO_SOCKET_IFNAME", _LOOPBACK)
            torch.distributed.init_process_group(
                backend,
                store=_store(place),
                rank=place.global_rank(),
                world_size=place.world_size(),
                timeout=self._timeout,
                device_id=None if self.root_device.type == "cpu" else self.root_device,
            )
            if backend == "nccl":
                # As Lightning does with a group that it started itself.
                atexit.register(_end_group)
        super().setup_distributed()


def _store(place: StartedRanks) -> TCPStore:
    """What the ranks find each other through; rank 0 keeps it."""
    if place.global_rank() > 0:
        return TCPStore(place.main_address, place.main_port, place.world_size(), is_master=False)
    family = socket.AF_INET6 if ":" in place.main_address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((place.main_address, place.main_port))
    listener.listen()
    return TCPStore(
        place.main_address,
        place.main_port,
        place.world_size(),
        is_master=True,
        master_listen_fd=listener.detach(),  # the store's from now on
    )


def _is_loopback(address: str) -> bool:
    """Whether all ranks are on one machine; the name of the interface is Linux's."""
    return sys.platform == "linux" and (address == "localhost" or address == "::1" or address.startswith("127."))


def _end_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def strategy_for(world_size: int, *, on_gpu: bool) -> Strategy | str:
    """How the ranks exchange gradients; a single one needs nobody."""
    if world_size == 1:
        return "auto"
    assert torch.distributed.is_available()
    return MeetingRanks(process_group_backend="nccl" if on_gpu else "gloo")

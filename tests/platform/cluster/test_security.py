"""What must not be open: ports beyond loopback, pickles in data, files outside of a data set."""

import json
import os
import re
import socket
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from headrace.platform.cluster import cluster
from headrace.platform.dataset.reader import StoredSamples
from headrace.platform.dataset.writer import SampleStore
from headrace.platform.errors import InputError
from headrace.platform.fields import FieldSpec, Grid, SampleSchema
from headrace.platform.joint_checkpoint import newest, read_arrays, reservoir_name, seal, stem
from headrace.platform.sample import SampleBatch

SCHEMA = SampleSchema(
    inputs=(FieldSpec(name="a"),),
    outputs=(FieldSpec(name="u"),),
    domain=Grid(shape=(4, 4), extent=(1.0, 1.0), periodic=(False, False)),
)


SESSION = re.compile(r"session_[\w.-]+")
"""The name of a cluster, in the commands of its daemons."""


class Harm:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, (str(self.path), os.O_CREAT)


def test_an_embedded_cluster_listens_on_loopback_alone(ray_cluster: None) -> None:
    assert len(listening()) > 3, "Ray's ports were not found"
    assert os.environ["RAY_AUTH_MODE"] == "token", "those who can reach the ports need a token all the same"
    # What an earlier test of this process started, on purpose elsewhere, may still be ending.
    deadline = time.monotonic() + 30.0
    while elsewhere := {one for one in listening() if one[0] not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")}:
        assert time.monotonic() < deadline, elsewhere
        time.sleep(0.5)


def listening() -> set[tuple[str, int, str]]:
    """Address, port and command of those of this cluster that listen: its daemons are our children, actors are theirs.

    Another cluster, which other tests of this process have started on purpose elsewhere, may be there as well.
    """
    children = {process.pid: process for process in psutil.Process().children(recursive=True)}
    (session,) = {
        found.group()
        for daemon in cluster._daemons.values()
        if (found := SESSION.search(command_of(daemon))) is not None
    }
    own = {pid for pid, process in children.items() if session in command_of(process)}
    own |= {child.pid for pid in own for child in below(children[pid])}
    return {
        (*connection.laddr, f"{children[pid].name()} {command_of(children[pid])[:200]}")
        for pid in own & children.keys()
        for connection in connections(children[pid])
        if connection.status == psutil.CONN_LISTEN and connection.type == socket.SOCK_STREAM
    }


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def connections(process: psutil.Process) -> list[object]:
    try:
        return list(process.net_connections(kind="tcp"))
    except psutil.Error:
        return []


@pytest.mark.parametrize("codec", ["numcodecs.pickle", "pickle"])
def test_a_shard_cannot_name_pickle_as_its_codec(tmp_path: Path, codec: str) -> None:
    zeros = np.zeros((2, 1, 4, 4), np.float32)
    with SampleStore.create(tmp_path / "shard-0.zarr", SCHEMA, {}) as store:
        store.append(
            SampleBatch(
                indices=np.arange(2), inputs=zeros, outputs=zeros[:, None], parameters=np.zeros((2, 0), np.float32)
            )
        )
    path = tmp_path / "shard-0.zarr" / "inputs" / "zarr.json"
    found = json.loads(path.read_text())
    found["codecs"] = [{"name": codec, "configuration": {}}]
    path.write_text(json.dumps(found))
    with pytest.raises(InputError):
        StoredSamples.open(tmp_path).read_all()


def test_the_arrays_of_a_checkpoint_are_not_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "harmed"
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / f"{stem(3)}.pt").write_bytes(b"weights")
    np.savez(folder / reservoir_name(3, 0), indices=np.array([Harm(mark)], dtype=object), allow_pickle=True)
    seal(folder, 3, {})
    found = newest(folder)
    assert found is not None
    path = found.reservoir(0)
    assert path is not None
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_arrays(path)
    assert not mark.exists()

"""Hosts on one machine: network namespaces, joined by a bridge and by wires that can be cut and slowed down.

A wire is a process that carries the frames between two TAP devices: it needs no traffic control in the kernel, and one
that is cut loses what is sent without anybody being told, as an unplugged switch further away does.
"""

import argparse
import contextlib
import fcntl
import heapq
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
HEAD = "10.77.0.1"


def why_not() -> str | None:
    """Why hosts cannot be made here; None where they can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    name = f"hr{os.getpid()}-try"
    try:
        for command in (
            f"ip netns add {name}",
            f"ip -n {name} link add br0 type bridge",
            f"ip netns exec {name} ip tuntap add tap0 mode tap",
        ):
            done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            if done.returncode:
                return f"`{command}` is not possible here: {done.stderr.strip()}"
    except FileNotFoundError:
        return "there is no `ip` (iproute2)"
    finally:
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return None


class Network:
    """A head, and hosts that are each joined to it by a wire of their own.

    Attributes:
        addresses: of the hosts, the head first.
    """

    def __init__(self, num_hosts: int) -> None:
        """Make the namespaces and start the wires; `close` ends all that runs in them."""
        self.addresses = [HEAD, *(f"10.77.0.{2 + number}" for number in range(num_hosts))]
        self._names = [f"hr{os.getpid()}-{number}" for number in range(1 + num_hosts)]
        head = self._names[0]
        for name in self._names:
            _ip(f"netns add {name}")
            _ip(f"-n {name} link set lo up")
        _ip(f"-n {head} link add br0 type bridge")
        _ip(f"-n {head} addr add {HEAD}/24 dev br0")
        _ip(f"-n {head} link set br0 up")
        self._wires = subprocess.Popen(
            [sys.executable, __file__, *self._names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._wires.stdout is not None
        if self._wires.stdout.readline().strip() != "ready":
            self.close()
            raise RuntimeError("the wires did not start")
        for number, name in enumerate(self._names[1:], start=1):
            _ip(f"-n {head} link set wire{number} master br0")
            _ip(f"-n {head} link set wire{number} up")
            _ip(f"-n {name} addr add {self.addresses[number]}/24 dev eth0")
            _ip(f"-n {name} link set eth0 up")

    def command(self, host: int, arguments: Sequence[str]) -> list[str]:
        """What carries out a command on a host."""
        return ["ip", "netns", "exec", self._names[host], *arguments]

    def cut(self, host: int) -> None:
        """Lose all that is sent to a host or by it, until `mend`."""
        self._set(host, cut=True)

    def mend(self, host: int) -> None:
        """Carry frames again."""
        self._set(host, cut=False)

    def slow_down(self, host: int, seconds: float) -> None:
        """Carry each frame for so long, in both directions [s]."""
        self._set(host, delay=seconds)

    def _set(self, host: int, **what: object) -> None:
        assert self._wires.stdin is not None
        self._wires.stdin.write(json.dumps({"host": host, **what}) + "\n")
        self._wires.stdin.flush()

    def kill(self, host: int) -> None:
        """End every process on a host, at once."""
        for _ in range(50):
            found = [int(line) for line in _ip(f"netns pids {self._names[host]}").split()]
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not [pid for pid in found if _is_alive(pid)]:
                return
            time.sleep(0.1)
        raise RuntimeError(f"processes of {self._names[host]} do not end")

    def close(self) -> None:
        """End what runs on the hosts, the wires, and the hosts."""
        for number in range(len(self._names)):
            self.kill(number)
        self._wires.kill()
        self._wires.wait()
        for name in self._names:
            _ip(f"netns del {name}")


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _ip(arguments: str) -> str:
    return subprocess.run(["ip", *arguments.split()], capture_output=True, text=True, check=True).stdout


def _tap(namespace: str, device: str) -> int:
    """A TAP device in a namespace, by its descriptor; it goes with the descriptor."""
    with open(f"/run/netns/{namespace}") as there:
        os.setns(there.fileno(), os.CLONE_NEWNET)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def _carry(names: Sequence[str]) -> None:
    """Be the wires between the first namespace and the others, as told by lines of JSON on standard input."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    selector = selectors.DefaultSelector()
    for number, name in enumerate(names[1:], start=1):
        here, there = _tap(names[0], f"wire{number}"), _tap(name, "eth0")
        selector.register(here, selectors.EVENT_READ, (number, there))
        selector.register(there, selectors.EVENT_READ, (number, here))
    os.setns(home, os.CLONE_NEWNET)
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
    delays, is_cut = dict.fromkeys(range(1, len(names)), 0.0), set()
    under_way: list[tuple[float, int, int, bytes]] = []
    count = 0
    print("ready", flush=True)
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for key, _ in selector.select(wait):
            if key.data is None:
                told = os.read(key.fd, 65536)
                if not told:
                    return
                for line in told.decode().splitlines():
                    order = json.loads(line)
                    delays[order["host"]] = order.get("delay", delays[order["host"]])
                    if "cut" in order:
                        (is_cut.add if order["cut"] else is_cut.discard)(order["host"])
                continue
            number, other = key.data
            for frame in _frames(key.fd):
                if number in is_cut:
                    continue
                if delays[number]:
                    count += 1
                    heapq.heappush(under_way, (time.monotonic() + delays[number], count, other, frame))
                else:
                    _send(other, frame)
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, other, frame = heapq.heappop(under_way)
            _send(other, frame)


def _frames(descriptor: int) -> Iterator[bytes]:
    for _ in range(64):
        try:
            yield os.read(descriptor, 65536)
        except OSError:
            return


def _send(descriptor: int, frame: bytes) -> None:
    with contextlib.suppress(OSError):  # the device is not up, or full: the frame is lost, as frames are
        os.write(descriptor, frame)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+")
    _carry(parser.parse_args().names)

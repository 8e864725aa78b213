"""Files that a crash leaves as they were or as they shall be, never in between; and locks that end with a process."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from headrace.platform.errors import InputError


def sync(path: Path) -> None:
    """Bring a file's content, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that takes the place of `path` when the block ends well; on the disk then. The folder must exist."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


def write_synced(path: Path, text: str) -> None:
    """Replace a file's text."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def lock(path: Path, what: str, *, seconds: float = 0.0) -> int:
    """Become the one process that holds a file, which is made, or a folder, which is there.

    Args:
        path: what to lock. Never lock a database itself: closing any descriptor of it drops the locks inside it.
        what: what nobody else may be at work on, for the error.
        seconds: how long to wait for one that is just going.

    Returns:
        The descriptor; closing it, or the end of the process, frees the lock.

    Raises:
        InputError: another process holds it.
    """
    is_folder = path.is_dir()
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT, 0o644)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                holder = "" if is_folder else os.pread(descriptor, 20, 0).decode()
                os.close(descriptor)
                raise InputError.single(
                    str(path.parent / path.name.removesuffix(".lock")),
                    f"in the hands of {f'process {holder}' if holder else 'another process'}",
                    f"{what} that nobody works on",
                    "Stop it first.",
                ) from error
            time.sleep(0.1)
        except OSError as error:
            os.close(descriptor)
            raise InputError.single(
                str(path), f"on a file system that cannot lock ({error.strerror})", f"{what} on one that can"
            ) from error
    if not is_folder:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock of a file; on a file system without locks, whether one ever did."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False

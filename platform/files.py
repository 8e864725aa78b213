"""Files that a crash leaves as they were or as they shall be, never in between; and locks that end with a process."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

from headrace.platform.errors import InputError, TakenOver

_BELOW = 200  # characters that the paths of files in a folder may add to its own


def usable_path(
    path: Path, where: str, expected: str, *, new: Literal["folder", "file", "files inside"] | None = None
) -> Path:
    """A path that a user named, once it was seen that something can be there; leaves nothing behind.

    Args:
        path: the path.
        where: what it was given as: `--out`, `RUN`, a key of the recipe.
        expected: what it should be, for the error.
        new: what shall be made there: a folder, which may be there when it is empty; a file in a folder that is there;
            or files in the folder, if it is there. None: it is only read, and whoever reads it says what is missing.

    Raises:
        InputError: the path is too long, leads through a file, may not be looked at, is taken or cannot be made.
    """
    try:
        is_there = _is_there(path)
        if new is None or (new == "files inside" and not is_there):
            return path
        if new != "files inside" and is_there and not (new == "folder" and path.is_dir() and not any(path.iterdir())):
            raise InputError.single(where, str(path), expected, "Nothing is overwritten.")
        _require_room(path, is_there=is_there, new=new)
    except ValueError as error:
        raise InputError.single(where, repr(str(path)), expected, f"It is no path: {error}.") from error
    except OSError as error:
        raise InputError.single(where, str(path), expected, _reason(path, error)) from error
    return path


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(f"It is a link to {path.readlink()}, where nothing is.") from None
        return False
    return True


def _require_room(path: Path, *, is_there: bool, new: str) -> None:
    """See that something can be made at a path, by making something in the nearest folder that there is."""
    folder = path.absolute()
    if not is_there:
        folder = folder.parent
        if new == "file" and not folder.is_dir():
            raise OSError(f"{folder} is not there.")
    while not folder.exists():
        folder = folder.parent
    most, longest = os.pathconf(folder, "PC_PATH_MAX"), os.pathconf(folder, "PC_NAME_MAX")
    if len(os.fsencode(path.absolute())) > most - _BELOW or any(len(os.fsencode(n)) > longest for n in path.parts):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".headrace-", dir=folder))
    except OSError as error:
        raise OSError(f"{folder} cannot be written: {error.strerror}.") from error


def _reason(path: Path, error: OSError) -> str:
    """Why a path cannot be used, in a sentence."""
    if error.errno == errno.ENOTDIR:
        file = next((parent for parent in reversed(path.absolute().parents) if not parent.is_dir()), path.parent)
        return f"{file} is a file, where a folder should be."
    return f"{error.strerror}." if error.strerror else str(error)


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


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """The same for who writes by a name: the draft's, whose file becomes `path` when the block ends well."""
    draft = path.with_name(f".headrace-{os.getpid()}")
    try:
        yield draft
        sync(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def drafted_folder(path: Path) -> Iterator[Path]:
    """Fill a folder that becomes `path`, which is new or empty, when the block ends well; else nothing is left."""
    path = path.absolute()
    missing = [parent for parent in path.parents if not parent.exists()]
    # A folder that is there stays the same one: somebody may stand in it.
    draft = (path if path.exists() else path.parent) / f".headrace-{os.getpid()}"
    draft.mkdir(parents=True)
    try:
        yield draft
        if not path.exists():
            draft.rename(path)
        else:
            for child in list(draft.iterdir()):
                child.rename(path / child.name)
            draft.rmdir()
        sync(path)
        sync(path.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def write_synced(path: Path, text: str) -> None:
    """Replace a file's text."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock, as it has written down itself.

    Attributes:
        process: its id.
        host: the name of its machine; empty where an earlier version wrote it.
        boot: which start of that machine it was; empty where the system does not say.
        since: when it took the lock, in UTC.
        epoch: how many holders there have been, this one included.
    """

    process: int
    host: str = ""
    boot: str = ""
    since: str = ""
    epoch: int = 0

    def __str__(self) -> str:
        host = f" on {self.host}" if self.host else ""
        since = f", since {self.since} UTC" if self.since else ""
        return f"process {self.process}{host}{since}"


class Lock:
    """A lock that this process holds until it is closed, or the process ends.

    Where locks reach other machines nobody else can hold it meanwhile. Where they are local to each machine, one can:
    it raises the epoch that stands in the note beside the lock, and `check` then stops this process. So a writer that
    was beyond a cut link, and comes back, does no harm.
    """

    def __init__(self, descriptor: int, note: Path, epoch: int) -> None:
        self._descriptor: int | None = descriptor
        self._note, self.epoch = note, epoch

    def check(self) -> None:
        """See that no other process has taken over.

        Raises:
            TakenOver: one has.
        """
        holder = read_holder(self._note)
        if holder is not None and holder.epoch != self.epoch:
            raise TakenOver(
                f"{self._note}: {holder} has taken over from process {os.getpid()} on {socket.gethostname()}, "
                "which had been out of reach, and writes no more"
            )

    def close(self) -> None:
        """Let another process have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_holder(path: Path) -> Holder | None:
    """Who holds the lock of a file or a folder, or held it last; None where nobody has written it down."""
    try:
        found = json.loads(_note_of(path).read_text(encoding="utf-8"))
        return Holder(process=found) if isinstance(found, int) else Holder(**found)
    except (OSError, ValueError, TypeError):
        return None


def _note_of(path: Path) -> Path:
    """Where it stands who holds a lock: in the file, or beside the folder."""
    return path.with_name(f".{path.name}.writer") if path.is_dir() else path


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def lock(path: Path, what: str, *, seconds: float = 0.0) -> Lock:
    """Become the one process that holds a file, which is made, or a folder, which is there.

    Args:
        path: what to lock. Never lock a database itself: closing any descriptor of it drops the locks inside it.
        what: what nobody else may be at work on, for the error.
        seconds: how long to wait for one that is just going, or whose machine is out of reach.

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
                os.close(descriptor)
                raise InputError.single(
                    str(path.parent / path.name.removesuffix(".lock")),
                    f"in the hands of {read_holder(path) or 'another process'}",
                    f"{what} that nobody works on",
                    "Stop it first.",
                ) from error
            time.sleep(0.1)
        except OSError as error:
            os.close(descriptor)
            raise InputError.single(
                str(path), f"on a file system that cannot lock ({error.strerror})", f"{what} on one that can"
            ) from error
    try:
        return Lock(descriptor, _note_of(path), _write_holder(path))
    except BaseException:
        os.close(descriptor)
        raise


def _write_holder(path: Path) -> int:
    """Write down that this process holds a lock now; the epoch that begins."""
    before = read_holder(path)
    holder = Holder(
        process=os.getpid(),
        host=socket.gethostname(),
        boot=_boot_id(),
        since=f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        epoch=1 + (before.epoch if before is not None else 0),
    )
    # In place: a file that took this one's place would not be locked.
    with _note_of(path).open("r+b" if _note_of(path).exists() else "wb") as file:
        file.write(json.dumps(asdict(holder)).encode())
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    return holder.epoch


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

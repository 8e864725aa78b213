"""keep_freed_memory: have the C library keep what is freed, for processes that allocate the same large arrays again."""

import ctypes
import platform

# From malloc.h of the GNU C library.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_DEFAULT_TRIM, _DEFAULT_MMAPS = 128 * 1024, 65_536
_LARGEST = 2**31 - 1


def keep_freed_memory(keep: bool = True) -> bool:
    """Have the GNU C library serve large arrays from its heap and never give freed memory back.

    By default it maps every array of more than 128 KiB to 32 MiB afresh and unmaps it when it is freed, and the kernel
    clears each page again at its first touch. A training step or a step of finite volumes allocates the same arrays as
    the last one, and spends up to half of its time so (docs/benchmarks/2026-11-30-training-steps.md). The price is that
    a process stays as large as it was at its largest.

    Args:
        keep: whether to; False goes back to the library's defaults.

    Returns:
        Whether this is a process of the GNU C library, which alone is told.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    done = library.mallopt(_M_MMAP_MAX, 0 if keep else _DEFAULT_MMAPS)
    return bool(done and library.mallopt(_M_TRIM_THRESHOLD, _LARGEST if keep else _DEFAULT_TRIM))

"""Configure glibc's malloc for training on a CPU."""

from __future__ import annotations

import ctypes
import platform

# Parameters of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Configure glibc's malloc to keep freed memory for the rest of the process; has no effect on other C libraries.

    Every step frees and allocates the same gigabyte. By default each large tensor is mapped again, and the kernel fills its
    pages with zeros: a fifth of the time of a step.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for name, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 * 2**20)):
            libc.mallopt(name, value)

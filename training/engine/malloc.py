"""Memory of a training process on a CPU, kept instead of returned and fetched again at every step."""

from __future__ import annotations

import ctypes
import platform

# glibc's names for mallopt, malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Have malloc keep what is freed, for the rest of the process; whether it could be told to.

    A step frees and wants the same gigabyte as the step before. By default every large tensor is mapped
    anew, and the kernel fills its pages with zeros first: a fifth of a step's time. Only glibc has this.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    wanted = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 * 2**20))
    return sum(libc.mallopt(name, value) for name, value in wanted) == len(wanted)

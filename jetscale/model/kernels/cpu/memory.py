"""Keep memory that a training step frees for the next step."""

from __future__ import annotations

import ctypes
import platform

# glibc: malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc takes no larger one
KEPT = 1 << 30


def keep_freed_memory() -> None:
    """Tell glibc not to give memory back to the system between steps; elsewhere, do nothing.

    By default it returns the free end of its heap once that passes some tens of MB, as it does in every step
    from width 64 on; the next step then pays a page fault for every 4 kB: 31 of 280 ms at width 128.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)

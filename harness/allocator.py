"""Memory that a step frees on the CPU, and the next step needs again, stays with the process.

glibc gives blocks of some hundred kilobytes and more back to the kernel when they are freed, and the kernel clears
every page anew when they are asked for again: a fifth of a small network's step (tests/benchmarks/README.md).
"""

import ctypes
import os

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # malloc.h


def keep() -> None:
    """Keep freed blocks up to 1 GiB, on glibc, from here on; nothing elsewhere, or where MALLOC_* variables say how."""
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl
        return
    mallopt(MMAP_THRESHOLD, 1 << 30)
    mallopt(TRIM_THRESHOLD, 2**31 - 1)

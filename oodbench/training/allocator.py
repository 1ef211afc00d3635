"""Memory of the C library: what a step frees, the next one takes again.

glibc returns every block above 32 MB to the kernel, and the page faults of taking it anew can cost a training on the
CPU more than its arithmetic does.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, and return whether the C library, glibc, can do that.

    Only speed and the process's size depend on it: what was once taken stays with the process until it ends.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 2**26))
    return all(set_option(option, value) == 1 for option, value in wanted)

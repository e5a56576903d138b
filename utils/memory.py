"""Memory that a process on the CPU can do without: what tensors no longer need, and a compiler for GPUs."""

import ctypes
import platform
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's names: of the free memory at the end of the heap that goes back to the system, and of the size from which on
a piece of memory is the system's own, and goes back to it when freed."""

LARGE = 256 * 1024
"""Bytes; all that counts among activations is larger."""

LARGEST = 32 * 1024 * 1024
"""Bytes; glibc's own threshold grows to it as large pieces of memory come and go."""


def return_freed_memory(at_once: bool = True) -> bool:
    """Let glibc return large tensors' memory to the system when they are freed; elsewhere nothing changes.

    It would keep the memory in a heap, where what is too small for the next tensor stays unused: a quarter of what
    training takes. Returning costs a few per cent of the time.

    Args:
        at_once: False keeps it in the heap again.

    Returns: whether this is glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    size = LARGE if at_once else LARGEST
    # Twice as much for the heap's end, as glibc itself has it.
    return libc.mallopt(M_MMAP_THRESHOLD, size) == 1 and libc.mallopt(M_TRIM_THRESHOLD, 2 * size) == 1


def leave_out_triton() -> bool:
    """Let PyTorch believe that Triton, the compiler of GPU kernels, is not installed; for processes without a GPU.

    PyTorch loads it with the first optimiser, whether anything is to be compiled or not, and it takes 70 MB. PyTorch's
    builds for CPUs come without it, and without it compile for CPUs.

    Returns: whether it is left out; not if it has been loaded already.
    """
    # So Python marks what cannot be imported.
    return sys.modules.setdefault("triton", None) is None

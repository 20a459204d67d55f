"""Running out of memory, which is what too large a batch ends in."""

from __future__ import annotations

import torch

SIGNS = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What the host's allocator, CUDA and NCCL, and cuBLAS say."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory has run out. What allocates beside torch's allocator of the device has no error
    of its own.
    """
    known = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    return known or (isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS))

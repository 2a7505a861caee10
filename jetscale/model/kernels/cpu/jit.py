"""How the kernels get the memory of tensors, and how they are spread over threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CHUNKS_PER_THREAD = 4  # work is uneven from jet to jet


def flat(x: Tensor) -> Floats:
    """Memory of a contiguous float32 tensor as a one-dimensional array, shared."""
    assert x.is_contiguous()
    array: Floats = (x.detach() if x.requires_grad else x).numpy()
    return array.reshape(-1)


def for_all(compiled: Callable[..., None], count: int, *args: Any) -> None:
    """Call `compiled(first, last, *args)` until 0 to `count` are done, on as many threads as PyTorch has.

    Every item is computed alone, so the result does not depend on the number of threads.
    """
    threads = min(torch.get_num_threads(), count)
    if threads == 1:
        compiled(0, count, *args)
        return
    edges = np.linspace(0, count, min(count, threads * CHUNKS_PER_THREAD) + 1).astype(np.int64)
    spans = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    jobs = [_pool(os.getpid(), threads).submit(compiled, first, last, *args) for first, last in spans]
    for job in jobs:
        job.result()


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:  # noqa: ARG001 (a forked child has no threads)
    return ThreadPoolExecutor(threads, thread_name_prefix="jetscale-kernel")

"""How the kernels are compiled, cached and spread over threads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CHUNKS_PER_THREAD = 4  # work is uneven from jet to jet


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compile at the first call, without the interpreter lock, and keep the machine code on disk.

    Numba's cache looks at the file of the function alone, not at the files of what it calls: the folder's
    name therefore changes with any file here. Numba writes it atomically, so processes may share it.
    """
    folder = cache_folder()
    if folder is None:
        return _njit(function, on_disk=False)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(folder)
    try:
        return _njit(function, on_disk=True)
    finally:
        numba.config.CACHE_DIR = before


def _njit(function: Callable[..., None], on_disk: bool) -> Callable[..., None]:
    compiled: Callable[..., None] = numba.njit(nogil=True, cache=on_disk)(function)
    return compiled


@cache
def cache_folder() -> Path | None:
    """NUMBA_CACHE_DIR, or the user's cache, with one folder per state of these sources; None if read-only."""
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    user = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    base = Path(os.environ.get("NUMBA_CACHE_DIR") or user)
    folder = base / "jetscale" / f"kernels-{hashlib.sha256(sources).hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


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

"""CUDA graphs of a batch's work, one for each capacity."""

# streams of torch.cuda have no types
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Work = Callable[[], None]

_WARM_UPS = 2


class GraphRunner:
    """Does the work of a batch with the smallest capacity that holds it.

    The work of a capacity is made when a batch first needs it, captured as a CUDA graph where `changed` is on
    a GPU, and replayed from then on; elsewhere it is called. A work is kept, and so is the memory that its
    graph reads and writes.

    Parameters
    ----------
    capacities : in tokens
    make : makes what enqueues the work of one batch of at most so many tokens
    changed : all tensors that a work changes and that outlive a batch: a capture leaves them as they were
    """

    def __init__(
        self, capacities: Iterable[int], make: Callable[[int], Work], changed: Sequence[Tensor]
    ) -> None:
        self._capacities = sorted(set(capacities))
        self._make = make
        self._changed = changed
        self._works: dict[int, Work] = {}
        self._ready: dict[int, Work] = {}

    def __call__(self, tokens: int) -> None:
        """Enqueue the work of a batch.

        Parameters
        ----------
        tokens : of the batch, a class token for each jet included

        Raises
        ------
        ValueError
            No capacity holds that many.
        """
        capacity = next((capacity for capacity in self._capacities if tokens <= capacity), None)
        if capacity is None:
            raise ValueError(f"a batch of {tokens} tokens, the largest capacity is {self._capacities[-1]}")
        if capacity not in self._ready:
            self._works[capacity] = self._make(capacity)
            self._ready[capacity] = ready(self._works[capacity], self._changed)
        self._ready[capacity]()


def ready(work: Work, changed: Sequence[Tensor]) -> Work:
    """Capture `work` as a CUDA graph, or return it as it is where `changed` is not on a GPU.

    Parameters
    ----------
    work : enqueues kernels on static memory, and neither waits nor allocates
    changed : all tensors that it changes and that outlive it; at least one

    Returns
    -------
    What replays the graph.
    """
    if changed[0].device.type != "cuda":
        return work
    before = [tensor.clone() for tensor in changed]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    # Lightning's autocast would cast the operands of cuBLAS products anew
    with torch.autocast("cuda", enabled=False):
        with torch.cuda.stream(side):  # compiles kernels and makes cuBLAS's handle, which a capture must not
            for _ in range(_WARM_UPS):
                work()
                for tensor, value in zip(changed, before, strict=True):
                    tensor.copy_(value)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # the feeding thread may allocate page-locked memory meanwhile, which a global capture forbids
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            work()
    return graph.replay

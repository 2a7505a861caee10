"""CUDA graphs of a batch's work, one for each capacity, and the streams of a process."""

# streams of torch.cuda have no types
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from jetscale.training.captured.plan import Capacities

Work = Callable[[], None]

_WARM_UPS = 2


class Graph(Protocol):
    """What is used of a `torch.cuda.CUDAGraph`."""

    def replay(self) -> None:
        """Enqueue what was captured."""
        ...


class Streams(NamedTuple):
    """Streams of this process beside the one that trains; see `streams`.

    Attributes
    ----------
    copies : of the thread that feeds
    work : where a work is done before its capture, and inside it
    capture : where a capture begins and ends
    """

    copies: torch.cuda.Stream
    work: torch.cuda.Stream
    capture: torch.cuda.Stream


@cache
def streams() -> Streams:
    """The streams of this process, which are made once, together, on the current device.

    PyTorch has 32 streams, which it gives out in turn. If every phase took new ones, the feeding thread would
    sooner or later copy on the stream of a capture, and its copies would be part of the graph.
    """
    return Streams(torch.cuda.Stream(), torch.cuda.Stream(), torch.cuda.Stream())


class GraphRunner:
    """Does the work of a batch with the smallest capacity that holds it.

    The work of a capacity is made when a batch first needs it, captured as a CUDA graph where `changed` is on
    a GPU, and replayed from then on; elsewhere it is called.

    Parameters
    ----------
    capacities : in tokens
    allocate : makes the memory for batches of at most so many tokens, and returns what makes, for a smaller
        capacity too, what enqueues the work of one batch in it. It must not refer to whoever holds the
        runner, else the memory of the graphs would be freed only when Python collects garbage
    changed : all tensors that a work changes and that outlive a batch: a capture leaves them as they were
    """

    def __init__(
        self,
        capacities: Capacities,
        allocate: Callable[[int], Callable[[int], Work]],
        changed: Sequence[Tensor],
    ) -> None:
        self._capacities = capacities
        self._allocate = allocate
        self._changed = changed
        self._memory: dict[int, Callable[[int], Work]] = {}
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
        capacity = self._capacities.of(tokens)
        if capacity not in self._ready:
            largest = self._capacities.memory_of(capacity)
            if largest not in self._memory:
                self._memory[largest] = self._allocate(largest)
            self._ready[capacity] = ready(self._memory[largest](capacity), self._changed)
        self._ready[capacity]()


class Replay:
    """Replays a graph, and keeps what the graph reads and writes: a graph holds addresses, not tensors.

    Parameters
    ----------
    graph : captured from `work`
    work, changed : see `ready`
    """

    def __init__(self, graph: Graph, work: Work, changed: Sequence[Tensor]) -> None:
        self._graph, self._kept = graph, (work, changed)

    def __call__(self) -> None:
        """Enqueue the graph on the present stream."""
        self._graph.replay()


def ready(work: Work, changed: Sequence[Tensor]) -> Work:
    """Capture `work` as a CUDA graph, or return it as it is where `changed` is not on a GPU.

    Parameters
    ----------
    work : enqueues kernels on static memory, and neither waits nor allocates
    changed : all tensors that it changes and that outlive it; at least one

    Returns
    -------
    What replays the graph, and keeps `work` and `changed`.

    Notes
    -----
    cuBLAS has a workspace (32 MiB on an H100) for each stream that it works on, and a graph holds its
    address. So all works of a process are warmed up and captured on one stream, and share the workspace that
    the first warm-up makes, outside of the graphs' own memory. That is safe since no two graphs run at the
    same time. A capture only begins and ends on another stream: in newer versions (2.13 has it) a graph that
    is destroyed takes the workspaces of that stream with it, though other graphs use them (pytorch issue
    193402).
    """
    if changed[0].device.type != "cuda":
        return work
    # on the host: a run of width 512 would else need 180 MiB more of the card
    before = [
        torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
        for tensor in changed
    ]
    # Lightning's autocast would cast the operands of cuBLAS products anew
    with torch.autocast("cuda", enabled=False):
        with _on(streams().work):  # compiles kernels and makes cuBLAS's handle, which a capture must not
            for _ in range(_WARM_UPS):
                work()
                for tensor, value in zip(changed, before, strict=True):
                    tensor.copy_(value, non_blocking=True)
        graph = torch.cuda.CUDAGraph()
        # the feeding thread may allocate page-locked memory meanwhile, which a global capture forbids
        capture = torch.cuda.graph(graph, stream=streams().capture, capture_error_mode="thread_local")
        with capture, _on(streams().work):
            work()
    return Replay(graph, work, changed)


@contextmanager
def _on(stream: torch.cuda.Stream) -> Iterator[None]:
    """Make `stream` the present one; it waits for the one that was, and that one for it afterwards."""
    present = torch.cuda.current_stream()
    stream.wait_stream(present)
    try:
        with torch.cuda.stream(stream):
            yield
    finally:
        present.wait_stream(stream)

"""Chunks of jets on the device, gathered and copied ahead by a thread.

The thread gathers into page-locked memory without the interpreter lock and copies on a stream beside the one
that trains, so the training waits for the first chunk alone. Without a GPU it gathers and does not copy.
"""

# streams and events of torch.cuda have no types
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from jetscale.jets.chunks import RawChunk
from jetscale.jets.stream import JetStream
from jetscale.training.captured.graphs import streams

SLOTS = 2
"""Chunks that can be ahead of the one in use."""


def tokens_of_batches(offsets_J1: npt.NDArray[np.int64], batch_size: int) -> list[int]:
    """Tokens of each batch of a chunk: its constituents, and one for each jet.

    Parameters
    ----------
    offsets_J1 : (J + 1,) first constituent of each jet, then T
    batch_size : jets of a batch; a last one that has fewer counts as filled up with empty jets
    """
    edges = offsets_J1[::batch_size]
    if (len(offsets_J1) - 1) % batch_size:
        edges = np.append(edges, offsets_J1[-1])
    tokens: list[int] = (np.diff(edges) + batch_size).tolist()
    return tokens


class FedChunk:
    """Jets on the device, to be copied from there (`jets`) and then released.

    Attributes
    ----------
    start, stop : positions of its jets, `stop` exclusive
    offsets_J1 : (J + 1,) int64, first constituent of each jet, then T; on the host
    """

    def __init__(self, slot: _Slot, chunk: RawChunk, offsets_J1: npt.NDArray[np.int64]) -> None:
        self.start, self.stop = chunk.start, chunk.start + chunk.n_jets
        self.offsets_J1 = offsets_J1
        self._slot = slot
        self._chunk = chunk

    @property
    def n_constituents(self) -> int:
        """Constituents T of all jets."""
        return int(self.offsets_J1[-1])

    @contextmanager
    def jets(self) -> Iterator[RawChunk]:
        """The jets, as the present stream may read them inside a `with`."""
        if self._slot.side is not None:
            torch.cuda.current_stream().wait_event(self._slot.arrived)
        yield self._chunk
        if self._slot.side is not None:
            self._slot.left.record(torch.cuda.current_stream())

    def release(self) -> None:
        """Let the thread fill the memory again, as soon as the device has read the jets.

        The thread then wants the interpreter, so whoever has kernels to launch launches them first: else each
        launch could wait 5 ms for its turn, Python's switch interval.
        """
        self._slot.free.put(self._slot)


class _Slot:
    """Memory of one chunk, on the host and on the device.

    Parameters
    ----------
    host : page-locked where the device is a GPU
    device : of the training
    free : where the slot goes when it is released
    side : stream of the copies; None without a GPU, where host and device are one
    """

    def __init__(
        self, host: RawChunk, device: torch.device, free: SimpleQueue[Any], side: torch.cuda.Stream | None
    ) -> None:
        self.host, self.free, self.side = host, free, side
        self.on_device = host
        if side is not None:
            with torch.cuda.stream(side):  # the allocator gives memory that no other stream still uses
                self.on_device = host.room_like(device)
            self.arrived = torch.cuda.Event()
            self.left = torch.cuda.Event(blocking=True)  # waits without burning a core

    def fill(self, stream: JetStream, start: int, stop: int) -> FedChunk:
        """Gather jets and start their copy; in the thread."""
        if self.side is not None:
            self.left.synchronize()
        chunk = stream.chunk(start, stop, self.host)
        offsets_J1 = chunk.offsets_J1.numpy().astype(np.int64)
        if self.side is not None:
            with torch.cuda.stream(self.side):
                chunk = chunk.copy_to(self.on_device)
                self.arrived.record(self.side)
        return FedChunk(self, chunk, offsets_J1)

    def settle(self) -> None:
        """Wait until nothing reads or writes the memory any more, so that it can be freed."""
        if self.side is not None:
            self.left.synchronize()
            self.side.synchronize()


class Feed:
    """The chunks at given positions, in order, at most `SLOTS` of them ahead of the one in use.

    Iterate over it once, inside a `with`, which ends the thread. An error in the thread, such as that of a
    damaged store, is raised where its chunk would have come. To Lightning it is a loader whose state need not
    be kept: the position belongs to the run.

    Parameters
    ----------
    stream : the jets; nobody else may use it meanwhile
    spans : first position of each chunk, and the one behind its last
    device : where the chunks are wanted
    """

    def __init__(self, stream: JetStream, spans: Sequence[tuple[int, int]], device: torch.device) -> None:
        self._stream = stream
        self._spans = spans
        self._device = device
        self._slots: list[_Slot] = []
        self._free: SimpleQueue[_Slot | None] = SimpleQueue()
        self._filled: SimpleQueue[FedChunk | BaseException] = SimpleQueue()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="jetscale feed", daemon=True)

    def __len__(self) -> int:
        return len(self._spans)

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        self._free.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        for slot in self._slots:
            slot.settle()
        # free the memory now: Lightning keeps the feed, and a slot and the queue it is in keep each other
        self._slots.clear()
        for queue in (self._free, self._filled):
            while not queue.empty():
                queue.get()

    def __iter__(self) -> Iterator[FedChunk]:
        self._thread.start()
        for _ in self._spans:
            filled = self._filled.get()
            if isinstance(filled, BaseException):
                raise filled
            yield filled

    def state_dict(self) -> dict[str, Any]:
        """No state: the position belongs to the run."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""

    def _work(self) -> None:
        try:
            self._make_slots()
            for start, stop in self._spans:
                slot = self._free.get()
                if slot is None or self._closed.is_set():
                    return
                self._filled.put(slot.fill(self._stream, start, stop))
        except BaseException as error:  # all of them: the training waits for this queue
            self._filled.put(error)

    def _make_slots(self) -> None:
        side = None
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
            side = streams().copies
        most = max(stop - start for start, stop in self._spans)
        for _ in range(SLOTS):
            host = self._stream.room(most, pinned=side is not None)
            self._slots.append(_Slot(host, self._device, self._free, side))
            self._free.put(self._slots[-1])

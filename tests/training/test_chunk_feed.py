"""How a phase is cut into chunks, which graph a batch takes, and the thread that feeds chunks."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: it comes with CUDA builds of torch")

from jetscale.jets.errors import JetDataError
from jetscale.jets.settings import DataSettings
from jetscale.jets.source import JetSource
from jetscale.jets.stream import JetStream
from jetscale.training.captured import plan
from jetscale.training.captured.feed import SLOTS, Feed, tokens_of_batches
from jetscale.training.captured.graphs import GraphRunner, Replay
from jetscale.training.captured.plan import Capacities, capacities
from jetscale.training.outputs import Schedule
from tests.jets.conftest import fill_jetclass
from tests.training.phases import (
    feeding_threads,
)


@pytest.fixture(scope="module")
def jets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jets")
    fill_jetclass(folder, n_jets=30)
    return folder


# ------------------------------------------------------------------------------------------------ chunks


@pytest.mark.parametrize("batch_size", [8, 128, 4_096, 100_000])
@pytest.mark.parametrize("start", [0, 1, 99, 150, 1_003])
@pytest.mark.parametrize(("log_every", "saved_every"), [(100, 2_000), (7, 11), (1, 5), (5_000, 5_000)])
def test_chunks_end_where_something_is_due(
    batch_size: int, start: int, log_every: int, saved_every: int
) -> None:
    schedule = Schedule(1_234, log_every, saved_every, frozenset({1, 10, 99, 100, 777, 1_234}))
    made = plan.chunks(schedule, start, batch_size, 128)
    assert [step for cut in made for step in cut] == list(range(start, 1_234)), "each step once, in order"
    ends = {cut.stop for cut in made}
    due = [
        step
        for step in range(start + 1, 1_235)
        if schedule.writes_line(step) or schedule.saves(step) or step in schedule.evaluations
    ]
    assert ends >= set(due)
    longest = max(len(cut) for cut in made)
    assert longest <= plan.MOST_STEPS
    assert longest * batch_size <= plan.jets_of_a_chunk(batch_size, 128)
    assert longest == 1 or longest * batch_size * 128 <= plan.MOST_CONSTITUENTS


def test_the_papers_chunks_are_its_windows() -> None:
    made = plan.chunks(Schedule(600_000, 100, 2_000, frozenset()), 0, 128, 128)
    assert {len(cut) for cut in made} == {100}
    assert {len(cut) for cut in plan.chunks(Schedule(600, 300, 2_000, frozenset()), 0, 128, 128)} == {100}


def test_capacities() -> None:
    rng = np.random.default_rng(1)
    lengths_J = np.clip(rng.normal(40, 17, 64 * 128).round(), 1, 128).astype(np.int64)
    found = capacities(lengths_J, 128, 128)
    assert found == (tuple(range(4_864, 6_401, 256)), 128 * 129)
    tokens = rng.choice(lengths_J + 1, (20_000, 128)).sum(axis=1)
    assert tokens.max() < found.usual[-1]
    assert tokens.max() > found.usual[-1] - 1_024
    spare = np.mean([found.of(int(batch)) for batch in tokens]) / tokens.mean() - 1
    assert spare < 0.04, "one capacity for all batches would leave 21% of the rows without a jet"
    assert capacities(np.full(64, 20), 1, 20) == ((21,), 21), "never above the full one"
    assert capacities(np.full(640, 3), 10, 128) == ((256,), 1_290)
    for batch_size in (1, 32, 2_048):
        usual, full = capacities(lengths_J, batch_size, 128)
        assert usual == tuple(sorted(set(usual)))
        assert 0 < usual[0] <= usual[-1] <= full
        assert len(usual) <= 9, "each is a graph to capture"


def test_a_batch_takes_the_smallest_capacity_that_holds_it() -> None:
    done: list[tuple[int, int]] = []
    allocated: list[int] = []
    made: list[int] = []

    def allocate(largest: int) -> Callable[[int], Callable[[], None]]:
        allocated.append(largest)

        def make(capacity: int) -> Callable[[], None]:
            made.append(capacity)
            return lambda: done.append((largest, capacity))

        return make

    run = GraphRunner(Capacities((512, 768), 2_048), allocate, [torch.zeros(1)])
    for tokens in (1, 512, 100, 513):
        run(tokens)
    assert (allocated, made) == ([768], [512, 768]), "the others are not made before they are needed"
    run(769)
    run(3)
    assert (allocated, made) == ([768, 2_048], [512, 768, 2_048])
    small, large = (768, 512), (768, 768)
    assert done == [small, small, small, large, (2_048, 2_048), small]
    with pytest.raises(ValueError, match="2049 tokens, the largest capacity is 2048"):
        run(2_049)


def test_what_replays_a_graph_keeps_what_the_graph_reads() -> None:
    class Step:
        def __init__(self) -> None:
            self.memory = torch.zeros(3)

        def train(self) -> None:
            raise AssertionError("a graph is replayed, not made anew")

    class Recorded:
        times = 0

        def replay(self) -> None:
            self.times += 1

    step, weights, graph = Step(), torch.ones(2), Recorded()
    alive = [weakref.ref(step), weakref.ref(step.memory), weakref.ref(weights)]
    replay = Replay(graph, step.train, [weights])
    del step, weights
    replay()
    assert graph.times == 1
    assert all(one() is not None for one in alive)
    del replay
    assert all(one() is None for one in alive)


# ------------------------------------------------------------------------------------------------ feed


@pytest.fixture
def stream(jets: Path) -> JetStream:
    return JetStream(JetSource(DataSettings(dir=str(jets)), "jetclass", "train", None, 0))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert feeding_threads() == []


def test_the_feed_gives_the_chunks_in_order(stream: JetStream) -> None:
    spans = [(0, 40), (40, 41), (41, 90), (90, 130), (130, 131)]
    with Feed(stream, spans, torch.device("cpu")) as feed:
        assert len(feed) == 5
        found = []
        for fed in feed:
            with fed.jets() as chunk:
                found.append((fed.start, fed.stop, chunk.copied(torch.device("cpu")), fed.offsets_J1))
            fed.release()
    assert [(start, stop) for start, stop, *_ in found] == spans
    for start, stop, chunk, offsets_J1 in found:
        expected = stream.chunk(start, stop)
        for name in ("x_TF", "pid_T", "offsets_J1", "labels_J", "side_J"):
            assert torch.equal(getattr(chunk, name), getattr(expected, name)), name
        assert offsets_J1.tolist() == expected.offsets_J1.tolist()


def test_the_feed_is_at_most_two_chunks_ahead(stream: JetStream, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[int] = []
    chunk = stream.chunk

    def noted(start: int, stop: int, room: Any = None) -> Any:
        gathered.append(start)
        return chunk(start, stop, room)

    monkeypatch.setattr(stream, "chunk", noted)
    with Feed(stream, [(8 * n, 8 * n + 8) for n in range(9)], torch.device("cpu")) as feed:
        for number, fed in enumerate(feed):
            time.sleep(0.02)  # time enough to run ahead
            assert len(gathered) <= number + SLOTS, "the one in use still has its memory"
            fed.release()
            time.sleep(0.02)
            assert number + 1 < len(gathered) or number == 8, "it does run ahead"
            assert len(gathered) <= number + 1 + SLOTS
    assert gathered == [8 * n for n in range(9)]


def test_an_error_of_the_feed_comes_where_its_chunk_would(
    stream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk, failure = stream.chunk, JetDataError("the part is damaged")

    def failing(start: int, stop: int, room: Any = None) -> Any:
        if start == 16:
            raise failure
        return chunk(start, stop, room)

    monkeypatch.setattr(stream, "chunk", failing)
    with Feed(stream, [(8 * n, 8 * n + 8) for n in range(9)], torch.device("cpu")) as feed:
        chunks = iter(feed)
        for start in (0, 8):
            fed = next(chunks)
            assert fed.start == start
            fed.release()
        with pytest.raises(JetDataError) as caught:
            next(chunks)
    assert caught.value is failure


def test_a_feed_can_be_left_at_any_time(stream: JetStream) -> None:
    spans = [(8 * n, 8 * n + 8) for n in range(90)]
    with Feed(stream, spans, torch.device("cpu")):
        pass
    with Feed(stream, spans, torch.device("cpu")) as feed:
        next(iter(feed))
        assert len(feeding_threads()) == 1
    with contextlib.suppress(KeyboardInterrupt), Feed(stream, spans, torch.device("cpu")) as feed:
        for fed in feed:
            fed.release()
            if fed.start == 80:
                raise KeyboardInterrupt
    assert feeding_threads() == []


def test_tokens_of_batches() -> None:
    offsets_J1 = np.array([0, 3, 5, 6, 10, 12])
    assert tokens_of_batches(offsets_J1, 2) == [7, 7, 4], "the last one is filled up with an empty jet"
    assert tokens_of_batches(offsets_J1, 5) == [17]

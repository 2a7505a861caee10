"""The captured step's chunks, feed, memory, checkpoints and evaluations, on a CPU.

`oracle` stands in for the kernels: with a rate that float32 holds exactly it computes, bit for bit, what the
eager step does, so whole phases must agree in every line, block and weight. The kernels themselves run in
Triton's interpreter at the end of this file, and on a card in `test_on_gpu`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: it comes with CUDA builds of torch")

from jetscale.jets.errors import JetDataError
from jetscale.jets.evaluation import EvalSet
from jetscale.jets.settings import DataSettings
from jetscale.jets.source import JetSource
from jetscale.jets.stream import JetStream
from jetscale.model.kernels.gpu import weights
from jetscale.runs.directory import RunDirectory
from jetscale.tracking.wandb_environment import Destination
from jetscale.tracking.wandb_run import WandbRun
from jetscale.training.build import build, outputs_of
from jetscale.training.captured import choice, cuts, evaluation, steps
from jetscale.training.captured.capacity import capacities
from jetscale.training.captured.feed import SLOTS, Feed, tokens_of_batches
from jetscale.training.captured.graphs import GraphRunner
from jetscale.training.captured.module import CapturedClassifier
from jetscale.training.checkpoint import Checkpoints
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.module import NonFiniteLoss
from jetscale.training.outputs import Outputs, Schedule
from jetscale.training.phase import PhaseResult, fit_phase
from jetscale.training.preemption import NOTICE, Preempted
from jetscale.training.settings import (
    EmaSettings,
    EvalSettings,
    FinetuneSettings,
    ModelSettings,
    Phase,
    SettingsError,
    TrackingSettings,
    TrainSettings,
)  # fmt: skip
from tests.jets.conftest import fill_jetclass
from tests.runs import metrics_of
from tests.training.oracle import OracleEvaluation, OracleStep

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated"),
    pytest.mark.filterwarnings("ignore:The `srun` command is available"),
]
RATE = 2.0**-10
"""A learning rate that float32 holds exactly."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As runs have it; more would wait for each other at these sizes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def jets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jets")
    fill_jetclass(folder, n_jets=30)
    return folder


def settings_of(jets: Path, steps: int = 30, **finetune: Any) -> TrainSettings:
    """Steps that write, save and evaluate, and do not coincide; 100 test jets are no multiple of a batch."""
    settings = TrainSettings(
        model=ModelSettings(dim=8),
        data=DataSettings(dir=str(jets), repeat=True, max_constituents=40, undo_deta_flip=True),
        finetune=FinetuneSettings(**{"steps": steps, "batch_size": 8, "warmup": 0, "lr": RATE, **finetune}),
        eval=EvalSettings(jets=100, every=11, log_points=3, batch_size=8, final_all=True),
        ema=EmaSettings(enabled=True, fraction=0.5, max_window=8),  # windows from 1 to 8 steps
        tracking=TrackingSettings(log_every=5, progress=False),
        checkpoint_every=7,
    )
    settings.device.accelerator = "cpu"
    return settings


@dataclass
class Made:
    """A phase that was trained."""

    folder: Path
    result: PhaseResult
    checkpoints: dict[int, dict[str, Any]]

    @property
    def lines(self) -> list[dict[str, Any]]:
        return metrics_of(self.folder)

    @property
    def blocks(self) -> Any:
        return pq.read_table(self.folder / "test_blocks.parquet")


def with_oracle(settings: TrainSettings, phase: Any, model: Any, data: Any, schedule: Any, _: str) -> Any:
    return CapturedClassifier(
        model, phase, settings.ema, settings.tracking.log_every, data, schedule, OracleStep, OracleEvaluation
    )


def with_kernels(settings: TrainSettings, phase: Any, model: Any, data: Any, schedule: Any, _: str) -> Any:
    return choice.captured(settings, phase, model, data, schedule)


def outputs_in(folder: Path) -> Outputs:
    folder.mkdir(exist_ok=True)
    silent = WandbRun("disabled", folder, {}, Destination(None, None, "", "", ()))
    return outputs_of(Phase.FINETUNE, RunDirectory(folder, "x"), silent)


def trained(
    settings: TrainSettings,
    folder: Path,
    make: Callable[..., LeanClassifier] | None = None,
    tested: bool = True,
) -> Made:
    """Train a phase, or go on with it, by the eager step or by `make`; `tested`: with a test set."""
    phase, network, data = build(settings, Phase.FINETUNE)
    outputs = outputs_in(folder)
    kept: dict[int, dict[str, Any]] = {}

    class Noted(Checkpoints):
        def save(self, state: dict[str, Any], step: int) -> None:
            super().save(state, step)
            kept[step] = self.load() or {}

    outputs.checkpoints = Noted(outputs.checkpoints.directory, outputs.checkpoints.phase)
    test = EvalSet(settings.data, "jetclass", n_jets=settings.eval.jets) if tested else None
    more = {} if make is None else {"make_module": make}
    result = fit_phase(settings, phase, network, data, outputs, test, **more)
    return Made(folder, result, kept)


def same_bits(one: Any, two: Any, path: str = "") -> None:
    """Assert that two state dicts hold the same, tensors to the last bit."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype, path
        assert torch.equal(one, two), path
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), path
        for key in one:
            same_bits(one[key], two[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), path
        for number, pair in enumerate(zip(one, two, strict=True)):
            same_bits(*pair, path=f"{path}[{number}]")
    else:
        assert one == two, path


def same(one: Made, two: Made) -> None:
    assert one.lines == two.lines
    assert one.blocks.equals(two.blocks)
    same_bits(one.result.weights, two.result.weights)
    same_bits(one.result.average, two.result.average)
    assert one.result.record | {"seconds": 0} == two.result.record | {"seconds": 0}


def same_checkpoints(one: Made, two: Made) -> None:
    assert one.checkpoints.keys() == two.checkpoints.keys()
    for step, state in one.checkpoints.items():
        for key in state.keys() - {"seconds", "metrics"}:  # the second is a checksum with the first in it
            same_bits(state[key], two.checkpoints[step][key], f"step {step}: {key}")


@pytest.fixture(scope="module")
def eager(jets: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return trained(settings_of(jets), tmp_path_factory.mktemp("eager") / "run")


# ------------------------------------------------------------------------------------------------ chunks


@pytest.mark.parametrize("batch_size", [8, 128, 4_096, 100_000])
@pytest.mark.parametrize("start", [0, 1, 99, 150, 1_003])
@pytest.mark.parametrize(("log_every", "saved_every"), [(100, 2_000), (7, 11), (1, 5), (5_000, 5_000)])
def test_chunks_end_where_something_is_due(
    batch_size: int, start: int, log_every: int, saved_every: int
) -> None:
    schedule = Schedule(1_234, log_every, saved_every, frozenset({1, 10, 99, 100, 777, 1_234}))
    made = cuts.chunks(schedule, start, batch_size, 128)
    assert [step for cut in made for step in cut] == list(range(start, 1_234)), "each step once, in order"
    ends = {cut.stop for cut in made}
    due = [
        step
        for step in range(start + 1, 1_235)
        if schedule.writes_line(step) or schedule.saves(step) or step in schedule.evaluations
    ]
    assert ends >= set(due)
    longest = max(len(cut) for cut in made)
    assert longest <= cuts.MOST_STEPS
    assert longest * batch_size <= cuts.jets_of_a_chunk(batch_size, 128)
    assert longest == 1 or longest * batch_size * 128 <= cuts.MOST_CONSTITUENTS


def test_the_papers_chunks_are_its_windows() -> None:
    made = cuts.chunks(Schedule(600_000, 100, 2_000, frozenset()), 0, 128, 128)
    assert {len(cut) for cut in made} == {100}
    assert {len(cut) for cut in cuts.chunks(Schedule(600, 300, 2_000, frozenset()), 0, 128, 128)} == {100}


def test_capacities() -> None:
    rng = np.random.default_rng(1)
    lengths_J = np.clip(rng.normal(40, 17, 64 * 128).round(), 1, 128).astype(np.int64)
    usual, full = capacities(lengths_J, 128, 128)
    assert (usual, full) == (6_400, 128 * 129)
    tokens = rng.choice(lengths_J + 1, (20_000, 128)).sum(axis=1)
    assert tokens.max() < usual
    assert tokens.max() > usual - 1_024
    assert capacities(np.full(64, 20), 1, 20) == (21, 21), "never above the full one"
    assert capacities(np.full(640, 3), 10, 128) == (256, 1_290)


def test_a_batch_takes_the_smallest_capacity_that_holds_it() -> None:
    done: list[int] = []
    made: list[int] = []

    def make(capacity: int) -> Callable[[], None]:
        made.append(capacity)
        return lambda: done.append(capacity)

    run = GraphRunner([2_048, 512, 512], make, [torch.zeros(1)])
    for tokens in (1, 512, 100):
        run(tokens)
    assert made == [512], "the other is not made before it is needed"
    run(513)
    run(3)
    assert (made, done) == ([512, 2_048], [512, 512, 512, 2_048, 512])
    with pytest.raises(ValueError, match="2049 tokens, the largest capacity is 2048"):
        run(2_049)


# ------------------------------------------------------------------------------------------------ feed


@pytest.fixture
def stream(jets: Path) -> JetStream:
    return JetStream(JetSource(DataSettings(dir=str(jets)), "jetclass", "train", None, 0))


def feeding_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "jetscale feed"]


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


# --------------------------------------------------------------------------------- a whole phase, oracle


def test_a_captured_phase_is_the_eager_one_to_the_last_bit(jets: Path, eager: Made, tmp_path: Path) -> None:
    captured = trained(settings_of(jets), tmp_path / "run", with_oracle)
    same(captured, eager)
    same_checkpoints(captured, eager)
    assert set(eager.checkpoints) == {7, 14, 21, 28}
    assert {line["split"] for line in captured.lines} == {"train", "test", "test_all"}
    assert captured.result.record["constituents"] == eager.result.record["constituents"] > 0


@pytest.mark.parametrize("features", ["part17", "kinematics"])
def test_other_inputs_without_average_and_without_test_jets(
    jets: Path, tmp_path: Path, features: str
) -> None:
    settings = settings_of(jets, steps=12)
    settings.data.features = features
    settings.ema.enabled = False
    one = trained(settings, tmp_path / "eager", None, tested=False)
    two = trained(settings, tmp_path / "captured", with_oracle, tested=False)
    assert one.lines == two.lines
    assert len(one.lines) == 3
    same_bits(one.result.weights, two.result.weights)
    same_checkpoints(two, one)
    assert two.result.average is None


def test_schedule_and_clip_reach_the_device(jets: Path, tmp_path: Path) -> None:
    """Rates that float32 rounds, so the same to rounding; the clip cuts every step."""
    chosen = {"lr": 3e-3, "warmup": 5, "schedule": "cosine", "clip": 0.05, "weight_decay": 0.3, "beta2": 0.99}
    settings = settings_of(jets, **chosen)
    one, two = (trained(settings, tmp_path / name, make) for name, make in (("a", None), ("b", with_oracle)))
    assert [line["lr"] for line in one.lines] == [line["lr"] for line in two.lines]
    for ours, theirs in zip(one.lines, two.lines, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    for name, expected in one.result.weights.items():
        torch.testing.assert_close(two.result.weights[name], expected, rtol=1e-4, atol=1e-6)
    unclipped = trained(replace(settings, finetune=replace(settings.finetune, clip=None)), tmp_path / "c")
    assert unclipped.lines[0]["loss"] != pytest.approx(one.lines[0]["loss"], rel=1e-4)


@pytest.mark.parametrize("changes", [{"checkpoint_every": 4}, {"log_every": 3}, {"every": 4}])
def test_another_cutting_changes_nothing(
    jets: Path, eager: Made, tmp_path: Path, changes: dict[str, int]
) -> None:
    settings = settings_of(jets)
    settings.checkpoint_every = changes.get("checkpoint_every", settings.checkpoint_every)
    settings.tracking.log_every = changes.get("log_every", settings.tracking.log_every)
    settings.eval.every = changes.get("every", settings.eval.every)
    other = trained(settings, tmp_path / "run", with_oracle)
    same_bits(other.result.weights, eager.result.weights)
    same_bits(other.result.average, eager.result.average)
    assert other.result.record["constituents"] == eager.result.record["constituents"]
    last = [[line for line in made.lines if line["split"] == "test"][-2:] for made in (other, eager)]
    assert last[0] == last[1]


class Killed(Exception):
    pass


def killing(make: Callable[..., LeanClassifier] | None, step: int) -> Callable[..., LeanClassifier]:
    """As `make`, but the process dies in the Lightning step that would go beyond `step`."""

    def made(*arguments: Any) -> LeanClassifier:
        module = (make or choice.module_for)(*arguments)
        take = module.training_step

        def step_or_die(batch: Any, batch_idx: int) -> None:
            take(batch, batch_idx)
            if module.step > step:
                raise Killed

        module.training_step = step_or_die  # type: ignore[method-assign]
        return module

    return made


@pytest.mark.parametrize(
    ("first", "second"),
    [(with_oracle, with_oracle), (None, with_oracle), (with_oracle, None)],
    ids=["captured goes on captured", "eager goes on captured", "captured goes on eager"],
)
@pytest.mark.parametrize("step", [8, 16, 27])
def test_killed_and_resumed_it_is_the_same_to_the_last_bit(
    jets: Path, eager: Made, tmp_path: Path, first: Any, second: Any, step: int
) -> None:
    settings = settings_of(jets)
    with pytest.raises(Killed):
        trained(settings, tmp_path / "run", killing(first, step))
    assert feeding_threads() == []
    settings.checkpoint_every = 6  # and cut otherwise
    resumed = trained(settings, tmp_path / "run", second)
    assert min(resumed.checkpoints) > 6, "it went on and did not start anew"
    same(resumed, eager)


@pytest.mark.parametrize("make", [None, with_oracle], ids=["eager", "captured"])
def test_resumed_with_other_metrics_lines_it_is_the_same_run(
    jets: Path, eager: Made, tmp_path: Path, make: Any
) -> None:
    with pytest.raises(Killed):
        trained(settings_of(jets), tmp_path / "run", killing(make, 21))
    settings = settings_of(jets)
    settings.tracking.log_every = 50
    message = (
        r"tracking.log_every=50: .* since step 0, and the checkpoint of step 21 has .* last 5 steps alone"
    )
    with pytest.raises(SettingsError, match=message):
        trained(settings, tmp_path / "run", make)
    settings.tracking.log_every = 8
    resumed = trained(settings, tmp_path / "run", make)
    whole = trained(settings, tmp_path / "whole", make)
    assert [line for line in resumed.lines if line["step"] > 21] == [
        line for line in whole.lines if line["step"] > 21
    ]
    same_bits(resumed.result.weights, eager.result.weights)


def test_asked_to_stop_it_leaves_a_checkpoint_of_the_chunk(jets: Path, eager: Made, tmp_path: Path) -> None:
    def asked(*arguments: Any) -> LeanClassifier:
        module = with_oracle(*arguments)
        take = module.training_step

        def step_and_ask(batch: Any, batch_idx: int) -> None:
            take(batch, batch_idx)
            NOTICE.number = 15 if module.step == 15 else NOTICE.number

        module.training_step = step_and_ask
        return module

    with pytest.raises(Preempted, match="checkpoint of step 15 written"):
        trained(settings_of(jets), tmp_path / "run", asked)
    same(trained(settings_of(jets), tmp_path / "run", with_oracle), eager)


def test_batches_above_the_usual_capacity_take_the_full_graph(
    jets: Path, eager: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens: dict[int, int] = {}

    class Counting(OracleStep):
        def train(self) -> None:
            tokens[self._capacity] = tokens.get(self._capacity, 0) + 1
            super().train()

    def tight(lengths_J: Any, batch_size: int, most: int) -> tuple[int, int]:
        return int(batch_size * (lengths_J.mean() + 1)), batch_size * (most + 1)

    def make(settings: Any, phase: Any, model: Any, data: Any, schedule: Any, _: str) -> Any:
        window = settings.tracking.log_every
        more = (data, schedule, Counting, OracleEvaluation)
        return CapturedClassifier(model, phase, settings.ema, window, *more)

    monkeypatch.setattr(steps, "capacities", tight)
    monkeypatch.setattr(evaluation, "capacities", tight)
    same(trained(settings_of(jets), tmp_path / "run", make), eager)
    assert len(tokens) == 2
    assert sum(tokens.values()) == 30
    assert all(times > 5 for times in tokens.values()), "both were needed"


def test_test_jets_that_do_not_stay_on_the_device(
    jets: Path, eager: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read again in parts, each time; and chunks so small that every set has several."""
    monkeypatch.setattr(evaluation, "KEPT_JETS", 50)
    monkeypatch.setattr(cuts, "MOST_CONSTITUENTS", 24 * 40)
    made = trained(settings_of(jets), tmp_path / "run", with_oracle)
    same_bits(made.result.weights, eager.result.weights)
    assert made.blocks.equals(eager.blocks)
    assert made.lines == eager.lines


def test_a_loss_that_is_not_finite_names_its_step(jets: Path, tmp_path: Path) -> None:
    class Exploding(OracleStep):
        def train(self) -> None:
            super().train()
            if int(self._jets.first) and float(self._tables.rows_K4[0, 1]) > 0.5:
                self._tables.losses[int(self._tables.k) - 1] = float("nan")

    def make(settings: Any, phase: Any, model: Any, data: Any, schedule: Any, _: str) -> Any:
        window = settings.tracking.log_every
        more = (data, schedule, Exploding, OracleEvaluation)
        return CapturedClassifier(model, phase, settings.ema, window, *more)

    # 1 - 0.9^t exceeds one half from step 7 on; the chunk that begins with it is steps 8 to 10
    with pytest.raises(NonFiniteLoss, match=r"the loss of step 8 is nan, on the jets at positions 56 to 63 "):
        trained(settings_of(jets), tmp_path / "run", make)


def test_a_damaged_store_stops_the_training(jets: Path, tmp_path: Path) -> None:
    def make(*arguments: Any) -> Any:
        module = with_oracle(*arguments)
        stream = arguments[3].stream
        chunk = stream.chunk

        def damaged(start: int, stop: int, room: Any = None) -> Any:
            if start >= 80:
                raise JetDataError("jets.arrow: damaged, checksum 0 of bytes 0 to 1")
            return chunk(start, stop, room)

        stream.chunk = damaged
        return module

    with pytest.raises(JetDataError, match=r"jets\.arrow: damaged"):
        trained(settings_of(jets), tmp_path / "run", make)
    assert feeding_threads() == []


# ------------------------------------------------------------------------------------------------ choice


def test_what_is_not_captured_and_why(jets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(jets)
    monkeypatch.setattr(choice, "unusable", lambda *_: None)
    _, network, _ = build(settings, Phase.FINETUNE)
    device = torch.device("cuda")
    assert choice.why_eager(network, "bf16-mixed", False, 16_512, device) is None
    assert choice.why_eager(network, "bf16-mixed", True, 16_512, device) == (
        "the run has callbacks, which may look at each step"
    )
    assert choice.why_eager(network, "bf16-mixed", False, 1 << 26, device) == (
        "a batch can have 67,108,864 tokens of width 8, too many for the kernels' indices"
    )
    monkeypatch.setattr(choice.ranks, "world_size", lambda: 2)
    assert choice.why_eager(network, "bf16-mixed", False, 16_512, device) == "2 processes share the run"


def test_a_run_on_a_cpu_is_never_captured(jets: Path) -> None:
    settings = settings_of(jets)
    phase, network, data = build(settings, Phase.FINETUNE)
    made = choice.module_for(settings, phase, network, data, Schedule(3, 1, 1, frozenset()), "32-true")
    assert type(made) is LeanClassifier


# --------------------------------------------------------- the kernels themselves, in Triton's interpreter


def few(jets: Path) -> TrainSettings:
    """A few steps of a few short jets: in the interpreter a program of a kernel takes milliseconds."""
    settings = settings_of(jets, steps=4, batch_size=4, clip=0.1, lr=3e-3)
    settings.model.depth = 2
    settings.data.max_constituents = 6
    settings.eval = EvalSettings(jets=6, every=3, log_points=0, batch_size=4)
    settings.tracking.log_every, settings.checkpoint_every = 2, 2
    return settings


@pytest.fixture(scope="module")
def few_programs() -> Iterator[None]:
    """Gradients in two parts instead of the dozens that fill a card."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_MOST_PARTS", 2)
        yield


@pytest.fixture(scope="module")
def by_kernels(jets: Path, few_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return trained(few(jets), tmp_path_factory.mktemp("kernels") / "run", with_kernels)


def test_kernels_train_as_the_eager_step(jets: Path, by_kernels: Made, tmp_path: Path) -> None:
    eager = trained(few(jets), tmp_path / "run")
    assert len(eager.lines) == len(by_kernels.lines) == 2 + 2 * 2
    for ours, theirs in zip(by_kernels.lines, eager.lines, strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours.keys() - {"loss", "check"}:
            assert ours[key] == theirs[key], key
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-5)
    torch.testing.assert_close(by_kernels.result.weights, dict(eager.result.weights), rtol=2e-4, atol=2e-6)
    torch.testing.assert_close(by_kernels.result.average, eager.result.average, rtol=2e-4, atol=2e-6)
    assert {key: by_kernels.blocks.column(key) for key in ("step", "weights", "block", "jets")} == {
        key: eager.blocks.column(key) for key in ("step", "weights", "block", "jets")
    }


def test_kernels_killed_and_resumed_give_the_same_to_the_last_bit(
    jets: Path, by_kernels: Made, tmp_path: Path
) -> None:
    settings = few(jets)
    with pytest.raises(Killed):
        trained(settings, tmp_path / "run", killing(with_kernels, 2))
    same(trained(settings, tmp_path / "run", with_kernels), by_kernels)

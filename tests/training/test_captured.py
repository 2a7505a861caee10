"""The captured step's chunks, feed, memory, checkpoints and evaluations, on a CPU.

`oracle` stands in for the kernels: with a rate that float32 holds exactly it computes, bit for bit, what the
eager step does, so whole phases must agree in every line, block and weight. The kernels themselves run in
Triton's interpreter at the end of this file, and on a card in `test_on_gpu`.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: it comes with CUDA builds of torch")

from jetscale.jets.errors import JetDataError
from jetscale.model.kernels.gpu import weights
from jetscale.model.transformer import SetTransformer
from jetscale.training.build import build
from jetscale.training.callbacks.metrics_writer import MetricsWriter
from jetscale.training.captured import choice, evaluation, feed, limits, plan, steps
from jetscale.training.captured.module import CapturedClassifier
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.module import NonFiniteLoss
from jetscale.training.outputs import Schedule
from jetscale.training.phase_settings import Phase, PretrainSettings
from jetscale.training.preemption import NOTICE, Preempted
from jetscale.training.settings import DeviceSettings, EvalSettings, TrainSettings
from tests.jets.conftest import fill_jetclass
from tests.training.oracle import OracleEvaluation, OracleStep
from tests.training.phases import (
    Killed,
    Made,
    feeding_threads,
    killing,
    same,
    same_bits,
    same_checkpoints,
    settings_of,
    trained,
    with_kernels,
    with_oracle,
)

pytestmark = [
    pytest.mark.xdist_group("captured"),  # they share runs
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated"),
    pytest.mark.filterwarnings("ignore:The `srun` command is available"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]


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


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert feeding_threads() == []


@pytest.fixture(scope="module")
def eager(jets: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return trained(settings_of(jets), tmp_path_factory.mktemp("eager") / "run")


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


@pytest.mark.parametrize(
    ("make", "written_at"),
    [(None, {5: 5, 10: 10, 15: 15, 20: 20, 25: 25, 30: 30}),
     (with_oracle, {5: 7, 10: 14, 15: 20, 20: 21, 25: 28, 30: 30})],
)  # fmt: skip
def test_a_line_is_written_while_the_device_computes_the_next_steps(
    jets: Path, tmp_path: Path, make: Any, written_at: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the next line, or before the next checkpoint (7, 14, 21, 28) or the end."""
    found: dict[int, int] = {}
    write = MetricsWriter._write

    def noted(self: MetricsWriter, module: LeanClassifier, step: int, *rest: Any) -> None:
        found[step] = module.step
        write(self, module, step, *rest)

    monkeypatch.setattr(MetricsWriter, "_write", noted)
    trained(settings_of(jets), tmp_path / "run", make, tested=False)
    assert found == written_at


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
@pytest.mark.parametrize("log_every", [(3,), (11,), (50,), (11, 7)])
def test_resumed_with_other_metrics_lines_each_step_is_in_one(
    jets: Path, eager: Made, tmp_path: Path, make: Any, log_every: tuple[int, ...]
) -> None:
    """Stopped at 23, the last line at 20; a second kill, at 26, comes before the first line since."""
    settings = settings_of(jets)
    for every, saved_every, killed_at in zip((5, *log_every), (23, 5), (23, 26), strict=False):
        settings.tracking.log_every, settings.checkpoint_every = every, saved_every
        with pytest.raises(Killed):
            trained(settings, tmp_path / "run", killing(make, killed_at))
    settings.tracking.log_every = log_every[-1]
    resumed = trained(settings, tmp_path / "run", make)
    settings.tracking.log_every = 1
    each = [line["loss"] for line in trained(settings, tmp_path / "each").lines if line["split"] == "train"]
    lines = [line for line in resumed.lines if line["split"] == "train"]
    ends = [line["step"] for line in lines]
    assert ends[:4] == [5, 10, 15, 20]
    assert ends[4:] == sorted({*range(log_every[-1], 30, log_every[-1]), 30} - {*range(24)})
    for line, start in zip(lines, [0, *ends], strict=False):
        assert line["loss"] == float(torch.tensor(each[start : line["step"]], dtype=torch.float64).mean())
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


def test_batches_take_the_graph_that_holds_them(
    jets: Path, eager: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens: dict[int, int] = {}

    class Counting(OracleStep):
        def train(self) -> None:
            tokens[self._capacity] = tokens.get(self._capacity, 0) + 1
            super().train()

    def tight(lengths_J: Any, batch_size: int, most: int) -> plan.Capacities:
        mean = int(batch_size * (lengths_J.mean() + 1))
        return plan.Capacities((mean - 15, mean + 15), batch_size * (most + 1))

    def make(settings: Any, phase: Any, model: Any, data: Any, schedule: Any, _: str) -> Any:
        window = settings.tracking.log_every
        more = (data, schedule, Counting, OracleEvaluation)
        return CapturedClassifier(model, phase, settings.ema, window, *more)

    monkeypatch.setattr(steps, "capacities", tight)
    monkeypatch.setattr(evaluation, "capacities", tight)
    same(trained(settings_of(jets), tmp_path / "run", make), eager)
    assert len(tokens) == 3
    assert sum(tokens.values()) == 30
    assert all(times > 3 for times in tokens.values()), "all were needed"


def test_test_jets_that_do_not_stay_on_the_device(
    jets: Path, eager: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read again in parts, each time; and chunks so small that every set has several."""
    monkeypatch.setattr(evaluation, "KEPT_JETS", 50)
    monkeypatch.setattr(plan, "MOST_CONSTITUENTS", 24 * 40)
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


def test_what_a_phase_computed_with_is_freed_when_it_ends(
    jets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, not when Python collects garbage: on a card this is the memory of graphs and activations."""
    alive: dict[str, weakref.ref[Any]] = {}

    class Noted(OracleStep):
        def __init__(self, model: Any, batch_size: int, capacity: int, state: Any, jets: Any, *rest: Any):
            super().__init__(model, batch_size, capacity, state, jets, *rest)
            for name, one in (("step", self), ("state", state), ("jets", jets), ("inputs", jets.x)):
                alive[name] = weakref.ref(one)
            alive["evaluated"] = weakref.ref(state.evaluated)

    class NotedEvaluation(OracleEvaluation):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            alive["evaluation"] = weakref.ref(self)
            alive["losses"] = weakref.ref(arguments[5])

    class NotedSlot(feed._Slot):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            alive["slot"] = weakref.ref(self)
            alive["chunk"] = weakref.ref(self.on_device)

    modules: list[CapturedClassifier] = []

    def make(settings: Any, phase: Any, model: Any, data: Any, schedule: Any, _: str) -> Any:
        window = settings.tracking.log_every
        more = (data, schedule, Noted, NotedEvaluation)
        modules.append(CapturedClassifier(model, phase, settings.ema, window, *more))
        return modules[0]

    monkeypatch.setattr(feed, "_Slot", NotedSlot)
    gc.collect()
    gc.disable()
    try:
        made = trained(settings_of(jets), tmp_path / "run", make)
        left = sorted(name for name, one in alive.items() if one() is not None)
    finally:
        gc.enable()
    assert len(alive) == 9
    assert left == []
    average = modules[0].average
    assert average is not None
    same_bits(
        {name: value.cpu() for name, value in modules[0].model.state_dict().items()}, made.result.weights
    )
    with average.applied():
        same_bits(dict(modules[0].model.state_dict()), made.result.average)


# ------------------------------------------------------------------------------------------------ choice


def test_what_is_not_captured_and_why(jets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(jets)
    phase, network, _ = build(settings, Phase.FINETUNE)
    card, said = torch.device("cuda"), "the card lacks something"
    monkeypatch.setattr(choice, "unusable", lambda *_: said)

    def reason(phase: Any = phase, **changes: Any) -> str | None:
        return choice.why_eager(replace(settings, **changes), phase, network, "bf16-mixed", card)

    assert reason() == said
    monkeypatch.setattr(choice, "unusable", lambda *_: None)
    assert reason() is None
    assert reason(callbacks={"mine": {}}) == "the run has callbacks, which may look at each step"
    assert reason(device=DeviceSettings(devices=2, num_nodes=3)) == "6 processes share the run"
    assert reason(eval=EvalSettings(batch_size=1_000_000)) is None, "the test jets come in smaller batches"
    # the widest rows of a token at width 8 are its inputs, 40 numbers with the padding of their groups
    most = (2**31 - 1) // (40 * 41)
    assert reason(replace(phase, batch_size=most)) is None
    assert reason(replace(phase, batch_size=most + 1)) == (
        f"finetune.batch_size={most + 1} is more than the kernels' indices reach with model.dim=8 and "
        f"data.max_constituents=40: at most {most:,}"
    )


def test_no_batch_has_more_partial_sums_of_the_head_than_can_be_counted() -> None:
    with torch.device("meta"):
        network = SetTransformer(512, 1_024)
    most = 16 * ((2**31 - 1) // (512 * 1_024))
    phase = PretrainSettings(batch_size=most)
    assert limits.too_large(network, phase, 1) is None
    assert str(limits.too_large(network, replace(phase, batch_size=most + 1), 1)).startswith(
        f"pretrain.batch_size={most + 1} is more than the kernels' indices reach with model.dim=512 and 1,024"
    )


def test_a_test_batch_is_cut_to_what_the_kernels_can_count(
    jets: Path, eager: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Noted(OracleEvaluation):
        def __init__(self, model: Any, batch_size: int, *rest: Any) -> None:
            sizes.append(batch_size)
            super().__init__(model, batch_size, *rest)

    def make(settings: Any, phase: Any, model: Any, data: Any, schedule: Any, _: str) -> Any:
        window = settings.tracking.log_every
        return CapturedClassifier(model, phase, settings.ema, window, data, schedule, OracleStep, Noted)

    monkeypatch.setattr(evaluation, "most_jets", lambda *_: 5)
    cut = trained(settings_of(jets), tmp_path / "run", make)
    assert min(sizes) == max(sizes) == 5, "and not the 8 of eval.batch_size"
    for ours, theirs in zip(cut.lines, eager.lines, strict=True):
        assert ours["accuracy"] == theirs["accuracy"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)


def test_a_run_on_a_cpu_is_never_captured(jets: Path) -> None:
    settings = settings_of(jets)
    phase, network, data = build(settings, Phase.FINETUNE)
    made = choice.module_for(settings, phase, network, data, Schedule(3, 1, 1, frozenset()), "32-true")
    assert type(made) is LeanClassifier


# --------------------------------------------------------- the kernels themselves, in Triton's interpreter


interpreted = pytest.mark.skipif(
    torch.cuda.is_available(), reason="Triton compiles for the GPU of this machine; test_on_gpu runs there"
)


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


@interpreted
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


@interpreted
def test_kernels_killed_and_resumed_give_the_same_to_the_last_bit(
    jets: Path, by_kernels: Made, tmp_path: Path
) -> None:
    settings = few(jets)
    with pytest.raises(Killed):
        trained(settings, tmp_path / "run", killing(with_kernels, 2))
    same(trained(settings, tmp_path / "run", with_kernels), by_kernels)

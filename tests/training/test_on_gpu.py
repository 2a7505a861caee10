"""The captured step on a card: against the eager step, against itself, and what it needs.

Without a card the first test runs at width 8 in Triton's interpreter; the others are skipped.
"""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

pytest.importorskip("triton", reason="triton is not installed: it comes with CUDA builds of torch")

from jetscale.jets.datasets.base import jet_file
from jetscale.jets.datasets.jetclass import JETCLASS_LABELS, JETCLASS_PREFIXES
from jetscale.jets.settings import DataSettings
from jetscale.model.kernels.gpu import weights
from jetscale.model.kernels.gpu.buffers import Tables
from jetscale.model.kernels.gpu.optimiser import AdamWSettings, FlatState
from jetscale.model.kernels.gpu.step import DeviceStep
from jetscale.training.build import build
from jetscale.training.captured import evaluation, steps
from jetscale.training.captured.graphs import ready
from jetscale.training.captured.memory import ChunkMemory
from jetscale.training.captured.module import CapturedClassifier
from jetscale.training.captured.plan import Capacities
from jetscale.training.lean_module import LeanClassifier
from jetscale.training.phase_settings import FinetuneSettings, Phase
from jetscale.training.settings import (
    EmaSettings,
    EvalSettings,
    ModelSettings,
    TrackingSettings,
    TrainSettings,
)
from tests.jets.conftest import random_jets, write_jetclass
from tests.training.oracle import batch_of
from tests.training.phases import Killed, Made, killing, same, same_bits, trained

ON_CARD = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_CARD else "cpu")
card = pytest.mark.skipif(not ON_CARD, reason="torch.cuda.is_available() is False: no NVIDIA GPU here")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated"),
    pytest.mark.filterwarnings("ignore:The `srun` command is available"),
    # the eager step, and runs on the CPU of a machine with a card
    pytest.mark.filterwarnings("ignore:.* does not have a deterministic implementation"),
    pytest.mark.filterwarnings("ignore:.*[Ff]lash [Aa]ttention .*deterministic"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]
WIDTHS = [8, 128, 512] if ON_CARD else [8]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fill(folder: Path, n_jets: int) -> None:
    """Random jets whose angles spread the wider, the higher the number of their class: it can be learnt."""
    for number, label in enumerate(JETCLASS_LABELS):
        for name, seed, n in ((0, 0, n_jets), (100, 1, max(n_jets // 10, 20))):
            made = random_jets(n, seed + 10 * number)
            changes = {
                f"part_{axis}": ak.unflatten(
                    (made["parts"][axis] * (0.3 + 0.2 * number)).astype(np.float32), made["counts"]
                )
                for axis in ("deta", "dphi")
            }
            path = folder / jet_file("jetclass", JETCLASS_PREFIXES[label], name).path
            write_jetclass(path, label, n, seed + 10 * number, **changes)


@pytest.fixture(scope="module")
def jets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jets")
    fill(folder, 3_000 if ON_CARD else 20)
    return folder


def settings_of(jets: Path, dim: int, steps: int, seed: int = 0, **finetune: Any) -> TrainSettings:
    return TrainSettings(
        seed=seed,
        model=ModelSettings(dim=dim),
        data=DataSettings(dir=str(jets), repeat=True),
        finetune=FinetuneSettings(**{"steps": steps, "warmup": 20, "lr": 1e-3, "clip": 1.0, **finetune}),
        eval=EvalSettings(jets=1_000, every=300, log_points=0),
        ema=EmaSettings(enabled=True),
        tracking=TrackingSettings(log_every=100, progress=False),
        checkpoint_every=250,
    )


def eager(settings: TrainSettings, phase: Any, model: Any, data: Any, schedule: Any, _: str) -> Any:
    return LeanClassifier(model, phase, settings.ema, settings.tracking.log_every)


# ------------------------------------------------------------------------------------- one step


def distance(gradients: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    """Of two gradients as a whole, relative to the second."""
    difference = sum(
        float((gradients[name].double().cpu() - reference[name]).square().sum()) for name in reference
    )
    return (difference / sum(float(value.square().sum()) for value in reference.values())) ** 0.5


def gradients_of(model: Any, loss: Tensor) -> dict[str, Tensor]:
    names = [name for name, _ in model.named_parameters()]
    found = torch.autograd.grad(loss, list(model.parameters()))
    return dict(zip(names, (value.detach().cpu() for value in found), strict=True))


@pytest.mark.parametrize("dim", WIDTHS)
def test_losses_and_gradients_are_as_near_to_double_precision_as_the_eager_step(
    jets: Path, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not ON_CARD:
        monkeypatch.setattr(weights, "_MOST_PARTS", 2)
    settings = settings_of(jets, dim, 20, batch_size=128 if ON_CARD else 4, clip=None)
    settings.data.max_constituents = 128 if ON_CARD else 12
    phase, network, data = build(settings, Phase.FINETUNE)
    model, n_jets = network.to(DEVICE), phase.batch_size
    memory = ChunkMemory(data.source, n_jets, DEVICE)
    memory.load(data.stream.chunk(0, n_jets).copied(DEVICE), n_jets)
    batch = batch_of(memory.buffers, n_jets)

    exact = copy.deepcopy(model).double().cpu()
    of_doubles = type(batch)(**{**vars(batch.to("cpu")), "x_TF": batch.x_TF.double().cpu()})
    loss = functional.cross_entropy(exact(of_doubles), of_doubles.labels_B)
    reference = gradients_of(exact, loss)

    with torch.autocast(DEVICE.type, torch.bfloat16):
        logits_BK = model(batch)
    eager_loss = functional.cross_entropy(logits_BK.float(), batch.labels_B)
    eager_gradients = gradients_of(model, eager_loss)

    half = torch.bfloat16 if ON_CARD else torch.float16  # the interpreter has no bfloat16
    state, tables = FlatState(model, None, half), Tables.allocate(1, DEVICE)
    tables.rows_K4.copy_(torch.tensor([[0.0, 0.1, 0.03, 0.0]]))
    tokens = batch.n_constituents + n_jets
    step = DeviceStep(model, n_jets, tokens, state, memory.buffers, tables, AdamWSettings())
    ours = {}

    def update(then: Callable[[], None]) -> None:
        ours.update({name: step.gradients.summed(name) for name in reference})
        then()  # adds partial sums up in place

    monkeypatch.setattr(step, "_update", partial(update, step._update))
    step.train()
    errors = [distance(gradients, reference) for gradients in (ours, eager_gradients)]
    assert errors[0] < 0.03, f"{errors}: bfloat16 has 8 bits"
    assert errors[0] <= 1.25 * errors[1] + 1e-3, f"{errors}: no worse than the eager step"
    near = [abs(float(found) - float(loss.detach())) for found in (tables.losses[0], eager_loss.detach())]
    assert near[0] <= 1.25 * near[1] + 5e-3, near
    assert int(tables.k) == 1
    assert int(memory.buffers.first) == n_jets


# ------------------------------------------------------------------------------------- whole phases


@pytest.fixture(scope="module")
def phases(jets: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Made]:
    """A captured phase of 600 steps, once for each width."""
    made: dict[int, Made] = {}

    def at(dim: int) -> Made:
        if dim not in made:
            folder = tmp_path_factory.mktemp("captured") / str(dim)
            made[dim] = trained(settings_of(jets, dim, 600), folder, noted)
        return made[dim]

    return at


def noted(*arguments: Any) -> LeanClassifier:
    """The module that a run gets; on a card it must be the captured one."""
    from jetscale.training.captured.choice import module_for

    module = module_for(*arguments)
    assert isinstance(module, CapturedClassifier)
    return module


@card
@pytest.mark.parametrize("dim", WIDTHS)
def test_two_runs_of_a_seed_are_the_same_to_the_last_bit(
    jets: Path, phases: Callable[[int], Made], tmp_path: Path, dim: int
) -> None:
    first = phases(dim)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch's of operations that are not deterministic, above all
        warnings.filterwarnings("ignore", "`isinstance")
        warnings.filterwarnings("ignore", "The `srun`")
        same(trained(settings_of(jets, dim, 600), tmp_path / "run", noted), first)
    other = trained(settings_of(jets, dim, 600, seed=1), tmp_path / "other", noted)
    assert other.lines[0]["loss"] != first.lines[0]["loss"]


@card
@pytest.mark.parametrize("dim", WIDTHS)
@pytest.mark.parametrize("step", [260, 599])
def test_killed_and_resumed_it_is_the_same_to_the_last_bit(
    jets: Path, phases: Callable[[int], Made], tmp_path: Path, dim: int, step: int
) -> None:
    settings = settings_of(jets, dim, 600)
    with pytest.raises(Killed):
        trained(settings, tmp_path / "run", killing(noted, step))
    settings.checkpoint_every = 130  # and cut otherwise
    same(trained(settings, tmp_path / "run", noted), phases(dim))


@card
@pytest.mark.parametrize("dim", [8, 512])
def test_batches_above_the_usual_capacity_take_the_full_graph(
    jets: Path, phases: Callable[[int], Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dim: int
) -> None:
    made: list[int] = []

    class Counting(DeviceStep):
        def __init__(self, model: Any, batch_size: int, capacity: int, *rest: Any) -> None:
            made.append(capacity)
            super().__init__(model, batch_size, capacity, *rest)

    def tight(lengths_J: Any, batch_size: int, most: int) -> Capacities:
        mean = int(batch_size * (lengths_J.mean() + 1)) // 256 * 256
        return Capacities((mean - 256, mean), batch_size * (most + 1))

    def counting(settings: Any, phase: Any, model: Any, data: Any, schedule: Any, _: str) -> Any:
        window = settings.tracking.log_every
        return CapturedClassifier(model, phase, settings.ema, window, data, schedule, Counting)

    for place in (steps, evaluation):
        monkeypatch.setattr(place, "capacities", tight)
    found = trained(settings_of(jets, dim, 600), tmp_path / "run", counting)
    assert len(made) == 2
    assert made[0] < made[1] == 128 * 129 or made[1] < made[0] == 128 * 129
    # cuBLAS may add up in another order for another number of rows
    for ours, theirs in zip(found.lines, phases(dim).lines, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=0.03)


@card
def test_a_run_takes_less_than_two_gibibytes(jets: Path, tmp_path: Path) -> None:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    trained(settings_of(jets, 512, 200), tmp_path / "run", noted)
    assert torch.cuda.max_memory_reserved() - before < 2 * 1024**3


@card
def test_a_finished_phase_leaves_no_memory_on_the_card(jets: Path, tmp_path: Path) -> None:
    """Without a garbage collection; what stays is the workspace of cuBLAS and the average of the weights."""
    trained(settings_of(jets, 512, 20), tmp_path / "first", noted)  # makes the workspace
    gc.collect()
    before = torch.cuda.memory_allocated()
    gc.disable()
    try:
        made = trained(settings_of(jets, 512, 20), tmp_path / "second", noted)
        left = torch.cuda.memory_allocated() - before
    finally:
        gc.enable()
    n_params = made.result.record["n_params"]["total"]
    assert left < 1.5 * 4 * n_params


@card
def test_graphs_keep_what_they_read_and_survive_each_other() -> None:
    """The operands are dropped, and another graph on cuBLAS is destroyed, before the first is replayed."""

    def product(seed: int) -> tuple[Callable[[], None], Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        # few outputs and many rows: cuBLAS splits the sum, and keeps its parts in its workspace
        x, y = (torch.randn(1 << 15, 64, generator=generator).to(DEVICE, torch.bfloat16) for _ in range(2))
        out = torch.zeros(64, 64, dtype=torch.bfloat16, device=DEVICE)
        expected = x.T.double() @ y.double()

        def multiply() -> None:
            torch.mm(x.t(), y, out=out)

        return ready(multiply, [out]), out, expected

    replay, out, expected = product(0)
    other, _, _ = product(1)
    other()
    torch.cuda.synchronize()
    del other
    torch.cuda.empty_cache()
    noise = [torch.full((1 << 20,), float("nan"), device=DEVICE) for _ in range(64)]
    out.zero_()
    for _ in range(3):
        replay()
    torch.testing.assert_close(out.double(), expected, rtol=0.02, atol=2.0)
    assert all(bool(block.isnan().all()) for block in noise), "the graph wrote where it must not"


@card
@pytest.mark.parametrize(
    ("first", "second"), [(noted, eager), (eager, noted)], ids=["to eager", "from eager"]
)
def test_a_checkpoint_goes_on_in_the_other_step(
    jets: Path, phases: Callable[[int], Made], tmp_path: Path, first: Any, second: Any
) -> None:
    settings = settings_of(jets, 8, 600)
    with pytest.raises(Killed):
        trained(settings, tmp_path / "run", killing(first, 450))
    found = trained(settings, tmp_path / "run", second)
    whole = phases(8)
    assert len(found.lines) == len(whole.lines)
    for ours, theirs in zip(found.lines, whole.lines, strict=True):
        assert {**ours, "loss": 0, "accuracy": 0, "check": ""} == {
            **theirs, "loss": 0, "accuracy": 0, "check": ""
        }  # fmt: skip
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=0.03)


@card
def test_test_losses_are_those_of_the_eager_evaluation(jets: Path, tmp_path: Path) -> None:
    """The same weights evaluated by both: after a checkpoint, steps of no size."""
    for name in ("one", "two"):
        with pytest.raises(Killed):
            trained(settings_of(jets, 8, 600), tmp_path / name, killing(noted, 510))
    still = settings_of(jets, 8, 600, lr=1e-30, weight_decay=0.0)
    one, two = (trained(still, tmp_path / name, make) for name, make in (("one", noted), ("two", eager)))
    same_bits(one.result.weights, two.result.weights)
    assert one.result.test["raw"].jets.tolist() == two.result.test["raw"].jets.tolist()
    np.testing.assert_allclose(
        one.result.test["raw"].loss_sum, two.result.test["raw"].loss_sum, rtol=0.02, atol=0.05
    )
    assert abs(one.result.test["raw"].correct - two.result.test["raw"].correct) <= 10


# ------------------------------------------------------------------------------------- curves


def curve(settings: TrainSettings, folder: Path, make: Any) -> np.ndarray[Any, Any]:
    lines = trained(settings, folder, make).lines
    return np.array([line["loss"] for line in lines if line["split"] == "train"])


@card
@pytest.mark.parametrize(
    "dim", [8, pytest.param(128, marks=pytest.mark.slow), pytest.param(512, marks=pytest.mark.slow)]
)
def test_curves_agree_within_the_scatter_of_seeds(jets: Path, tmp_path: Path, dim: int) -> None:
    """2,000 steps: captured in bf16, eager in bf16, and at width 8 float32 on the CPU, which is slow."""

    def settings(seed: int = 0) -> TrainSettings:
        made = settings_of(jets, dim, 2_000, seed)
        made.eval = EvalSettings(jets=100, every=2_000, log_points=0)
        return made

    seeds = [curve(settings(seed), tmp_path / f"seed{seed}", noted) for seed in range(5)]
    ways = {"eager": curve(settings(), tmp_path / "eager", eager)}
    if dim == 8:
        on_cpu = settings()
        on_cpu.device.accelerator = "cpu"
        ways["cpu"] = curve(on_cpu, tmp_path / "cpu", eager)
    assert seeds[0][-1] < seeds[0][0] - 0.2, "it learns"
    tails = [float(losses[-5:].mean()) for losses in seeds]
    scatter = float(np.std(tails, ddof=1))
    for name, losses in ways.items():
        assert losses[0] == pytest.approx(seeds[0][0], abs=0.02), f"{name}: the first hundred steps"
        assert abs(float(losses[-5:].mean()) - tails[0]) < 3 * scatter, (name, tails, losses[-5:].mean())

"""Measure the seconds of a training step on synthetic jets, for the time estimates of a plan."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from jetscale.common.paper import MEAN_CONSTITUENTS
from jetscale.jets.batch import JetBatch
from jetscale.jets.settings import MAX_CONSTITUENTS
from jetscale.model.network import Network
from jetscale.model.transformer import SetTransformer
from jetscale.training.captured.choice import why_eager
from jetscale.training.captured.plan import jets_of_a_chunk
from jetscale.training.phase_settings import PhaseSettings
from jetscale.training.settings import DeviceSettings, TrainSettings

_ENOUGH_SECONDS = 1.5
_MOST_STEPS = 64
"""Captured steps that are timed as one."""


@dataclass(frozen=True)
class Step:
    """A training step that can be measured alone, as far as it is not decided by the network.

    Attributes
    ----------
    batch_size : jets of one process
    max_constituents : of a jet
    device : ``cpu`` or ``cuda``
    precision : ``32-true`` or ``bf16-mixed``
    threads : of PyTorch on the CPU
    captured : whether it is a CUDA graph, as a run would have it
    """

    batch_size: int
    max_constituents: int
    device: str
    precision: str
    threads: int
    captured: bool


def probe_device(settings: DeviceSettings) -> torch.device:
    """Device that a run with these settings would take here."""
    if settings.accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def step_of(settings: TrainSettings, phase: PhaseSettings, model: Network) -> Step:
    """The step of a phase on this machine; where several processes share a run, that of one of them alone.

    Parameters
    ----------
    settings : of the run
    phase : of `settings`
    model : the network; its weights may be on the meta device
    """
    device = probe_device(settings.device)
    on_gpu = device.type == "cuda"
    precision = settings.device.precision
    if precision == "auto":
        precision = "bf16-mixed" if on_gpu else "32-true"
    return Step(
        batch_size=phase.batch_size // (settings.device.devices * settings.device.num_nodes),
        max_constituents=settings.data.max_constituents,
        device=device.type,
        precision=precision,
        threads=settings.device.threads,
        captured=on_gpu and why_eager(settings, phase, model, precision, device) is None,
    )


def seconds_per_step(model: Network, step: Step) -> float:
    """Median time of a training step with AdamW, on jets of 40 constituents on average.

    The first time, which compiles kernels and fills caches, does not count.

    Parameters
    ----------
    model : the network; it is moved to the device of `step`, and its weights change
    step : see `step_of`

    Returns
    -------
    Seconds for each step.
    """
    torch.set_num_threads(step.threads)
    model = model.to(step.device)
    work, n_steps = _work(model, step)
    times: list[float] = []
    while len(times) < 2 or sum(times[1:]) < _ENOUGH_SECONDS:
        start = time.monotonic()
        work()
        if step.device == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - start)
    return statistics.median(times[1:]) / n_steps


def _work(model: Network, step: Step) -> tuple[Callable[[], None], int]:
    """What takes some steps, and how many they are."""
    jets = synthetic_batch(model, step.batch_size, step.max_constituents)
    if not step.captured:
        return _eager(model, jets.to(step.device), step.precision == "bf16-mixed"), 1
    from jetscale.training.captured.alone import steps_alone  # needs Triton

    assert isinstance(model, SetTransformer)
    # no more of the card's memory than a run takes, which has one chunk there
    chunk = jets_of_a_chunk(step.batch_size, step.max_constituents) // step.batch_size
    n_steps = min(_MOST_STEPS, chunk)
    return steps_alone(model, jets, n_steps), n_steps


def _eager(model: Network, jets: JetBatch, half: bool) -> Callable[[], None]:
    """One step, operation by operation."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast(jets.x_TF.device.type, torch.bfloat16, enabled=half):
            logits_BK = model(jets)
        torch.autograd.backward(F.cross_entropy(logits_BK.float(), jets.labels_B))
        optimizer.step()
        optimizer.zero_grad()

    return step


def synthetic_batch(model: Network, n_jets: int, max_constituents: int = MAX_CONSTITUENTS) -> JetBatch:
    """Random jets that `model` can classify, with the spread of multiplicities of JetClass.

    Parameters
    ----------
    model : says how many features, identities and classes the jets have
    n_jets : B
    max_constituents : of a jet; of longer ones the first are kept

    Returns
    -------
    The same B jets at every call, on the CPU.
    """
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(n_jets, generator=generator) * 17  # standard deviation of JetClass multiplicities
    lengths_B = (MEAN_CONSTITUENTS + spread).round().clamp(min=2).clamp(max=max_constituents).long()
    n_constituents = int(lengths_B.sum())
    return JetBatch(
        x_TF=torch.randn(n_constituents, model.n_features, generator=generator),
        pid_T=torch.zeros(n_constituents, dtype=torch.long) if model.n_pid else None,
        lengths_B=lengths_B,
        labels_B=torch.arange(n_jets) % model.n_classes,
        positions_B=torch.arange(n_jets),
    )

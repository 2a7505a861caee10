"""Measure the seconds of a training step on synthetic jets, for the time estimates of a plan."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from jetscale.common.paper import MEAN_CONSTITUENTS
from jetscale.jets.batch import JetBatch
from jetscale.model.kernels.gpu import unusable
from jetscale.model.network import Network
from jetscale.model.transformer import SetTransformer
from jetscale.training.settings import DeviceSettings

_ENOUGH_SECONDS = 1.5
_CHUNK = 64  # captured steps that are timed as one


def probe_device(settings: DeviceSettings) -> torch.device:
    """Device that a run with these settings would take here."""
    if settings.accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def seconds_per_step(
    model: Network, batch_size: int, device: torch.device, settings: DeviceSettings
) -> float:
    """Median time of a training step with AdamW, on jets of 40 constituents on average.

    On a GPU it is the captured step where a run takes that. The first step, which compiles kernels and fills
    caches, does not count.

    Parameters
    ----------
    model : the network; it is moved to `device`, and its weights change
    batch_size : B, jets in a step
    device : where to measure
    settings : threads and precision

    Returns
    -------
    Seconds for each step.
    """
    torch.set_num_threads(settings.threads)
    model = model.to(device)
    jets = synthetic_batch(model, batch_size)
    half = device.type == "cuda" and settings.precision != "32-true"
    precision = "bf16-mixed" if half else "32-true"
    if device.type == "cuda" and unusable(model, precision, device) is None:
        from jetscale.training.captured.alone import steps_alone  # needs Triton

        assert isinstance(model, SetTransformer)
        work, n_steps = steps_alone(model, jets, _CHUNK), _CHUNK
    else:
        work, n_steps = _eager(model, jets.to(device), half), 1
    times: list[float] = []
    while len(times) < 2 or sum(times[1:]) < _ENOUGH_SECONDS:
        start = time.monotonic()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - start)
    return statistics.median(times[1:]) / n_steps


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


def synthetic_batch(model: Network, n_jets: int) -> JetBatch:
    """Random jets that `model` can classify, with the spread of multiplicities of JetClass.

    Parameters
    ----------
    model : says how many features, identities and classes the jets have
    n_jets : B

    Returns
    -------
    The same B jets at every call, on the CPU.
    """
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(n_jets, generator=generator) * 17  # standard deviation of JetClass multiplicities
    lengths_B = (MEAN_CONSTITUENTS + spread).round().clamp(2, 128).long()
    n_constituents = int(lengths_B.sum())
    return JetBatch(
        x_TF=torch.randn(n_constituents, model.n_features, generator=generator),
        pid_T=torch.zeros(n_constituents, dtype=torch.long) if model.n_pid else None,
        lengths_B=lengths_B,
        labels_B=torch.arange(n_jets) % model.n_classes,
        positions_B=torch.arange(n_jets),
    )

"""Measure the seconds of a training step on synthetic jets, for the time estimates of a plan."""

from __future__ import annotations

import statistics
import time

import torch
import torch.nn.functional as F

from jetscale.common.paper import MEAN_CONSTITUENTS
from jetscale.jets.batch import JetBatch
from jetscale.model.network import Network
from jetscale.training.settings import DeviceSettings

_ENOUGH_SECONDS = 1.5


def probe_device(settings: DeviceSettings) -> torch.device:
    """Device that a run with these settings would take here."""
    if settings.accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def seconds_per_step(model: Network, batch_size: int, device: torch.device, threads: int) -> float:
    """Median time of a forward and backward pass with AdamW, jets of 40 constituents on average.

    The first step, which compiles kernels and fills caches, does not count.

    Parameters
    ----------
    model : the network; it is moved to `device`, and its weights change
    batch_size : B, jets in a step
    device : where to measure
    threads : CPU threads of torch

    Returns
    -------
    Seconds for each step.
    """
    torch.set_num_threads(threads)
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    batch = synthetic_batch(model, batch_size).to(device)
    times: list[float] = []
    while len(times) < 2 or sum(times[1:]) < _ENOUGH_SECONDS:
        start = time.monotonic()
        torch.autograd.backward(F.cross_entropy(model(batch).float(), batch.labels_B))
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - start)
    return statistics.median(times[1:])


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

"""Seconds a step, measured here on synthetic jets: what a plan multiplies."""

from __future__ import annotations

import statistics
import time

import torch
import torch.nn.functional as F

from jetscale.common.paper import MEAN_CONSTITUENTS
from jetscale.model.transformer import SetTransformer
from jetscale.training.settings import DeviceSettings

_ENOUGH_SECONDS = 1.5


def probe_device(settings: DeviceSettings) -> torch.device:
    """Device that a run with these settings would take here."""
    if settings.accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def seconds_per_step(model: SetTransformer, batch_size: int, device: torch.device, threads: int) -> float:
    """Median time of a forward and backward pass with AdamW, jets of 40 constituents on average.

    The first step, which compiles kernels and fills caches, does not count.
    """
    torch.set_num_threads(threads)
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(batch_size, generator=generator) * 17  # scatter of the JetClass multiplicity
    lengths_B = (MEAN_CONSTITUENTS + spread).round().clamp(2, 128).long()
    n = int(lengths_B.sum())
    x_TF = torch.randn(n, model.embed.in_features, generator=generator).to(device)
    pid_T = None if model.pid is None else torch.zeros(n, dtype=torch.long, device=device)
    labels_B = torch.arange(batch_size, device=device) % model.head.out_features
    times: list[float] = []
    while len(times) < 2 or sum(times[1:]) < _ENOUGH_SECONDS:
        start = time.monotonic()
        torch.autograd.backward(F.cross_entropy(model(x_TF, pid_T, lengths_B).float(), labels_B))
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - start)
    return statistics.median(times[1:])

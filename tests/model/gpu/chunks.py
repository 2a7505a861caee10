"""Jets in a chunk on the device, the same jets as batches for the plain model, and where the tests run."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from jetscale.jets.batch import JetBatch
from jetscale.model.kernels.gpu.buffers import JetBuffers

DEVICE = (
    "cuda" if torch.cuda.is_available() else "cpu"
)  # a CPU: in Triton's interpreter, see tests/conftest.py
N_PID = 9


def chunk(
    lengths: list[int],
    n_features: int = 8,
    deta_column: int = -1,
    n_classes: int = 10,
) -> JetBuffers:
    """Random jets of these lengths; some room behind them holds what no kernel may read."""
    generator = torch.Generator().manual_seed(len(lengths) + n_features)
    total, n_jets = sum(lengths), len(lengths)
    jets = JetBuffers.allocate(
        total + 5,
        n_jets,
        torch.randn(n_features, generator=generator),
        0.5 + torch.rand(n_features, generator=generator),
        DEVICE,
        deta_column,
    )
    jets.x[:total] = torch.randn(total, n_features, generator=generator).half()
    jets.x[total:] = torch.nan
    jets.pid[:total] = torch.randint(1, N_PID, (total,), generator=generator).to(torch.uint8)
    jets.pid[total:] = 255
    jets.offsets[1:] = torch.tensor(lengths).cumsum(0)
    jets.labels[:] = torch.randint(n_classes, (n_jets,), generator=generator)
    if deta_column >= 0:
        jets.side[:] = 1 - 2 * torch.randint(2, (n_jets,), generator=generator)
    return jets


def batch(jets: JetBuffers, first: int, n_jets: int, has_pid: bool = True) -> JetBatch:
    """The jets from `first` on as `jetscale.jets.stream` would hand them out, on the CPU."""
    offsets = jets.offsets.cpu().long()
    low, high = int(offsets[first]), int(offsets[first + n_jets])
    x = (jets.x[low:high].float() - jets.centre) * jets.scale
    lengths = offsets[first : first + n_jets + 1].diff()
    if jets.deta_column >= 0:
        sides = jets.side[first : first + n_jets].float().cpu().repeat_interleave(lengths)
        x[:, jets.deta_column] *= sides.to(x.device)
    return JetBatch(
        x_TF=x.cpu(),
        pid_T=jets.pid[low:high].long().cpu() if has_pid else None,
        lengths_B=lengths,
        labels_B=jets.labels[first : first + n_jets].long().cpu(),
        positions_B=torch.arange(first, first + n_jets),
    )


def rows_of(jets: JetBuffers, first: int, n_jets: int) -> list[tuple[int, int]]:
    """First and last row (exclusive) of each jet's tokens in the batch."""
    offsets = jets.offsets.tolist()
    starts = [offsets[first + b] - offsets[first] + b for b in range(n_jets + 1)]
    return list(pairwise(starts))


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Largest difference, as a share of the largest number."""
    ours, theirs = (x.detach().cpu().double() for x in (ours, theirs))
    scale = max(float(theirs.abs().max()), 1e-30)
    difference = float((ours - theirs).abs().max())
    assert difference <= tolerance * scale, f"differs by {difference:.3g}, largest is {scale:.3g}"

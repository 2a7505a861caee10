"""The step's table on a GPU: packed variable-length attention against padded jets, by width and batch.

    python -m benchmarks.gpu

Prints the card and a row for each width, batch size and variant of the step. Steps are forward, backward and
fused AdamW under bfloat16 autocast, as training makes them there; times are medians of CUDA events. `graphed`
is the padded step replayed as one CUDA graph: the time without launches of kernels, and so the largest gain
that small widths can have from graphs or `torch.compile`.
"""

from __future__ import annotations

import copy
import statistics
import sys
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from benchmarks.step import PADDED_TO, batch
from jetscale.jets.batch import JetBatch
from jetscale.model.attention import HAS_VARLEN
from jetscale.model.reference import pad, padded_block, padded_logits
from jetscale.model.transformer import Block, SetTransformer

DIMS, COPIES = (8, 32, 128, 512), (1, 8)  # batches of 128 and 1,024 jets
STEPS, WARM_UP = 30, 10


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("no GPU: torch.cuda.is_available() is False; on a CPU run python -m benchmarks.step")
    console = Console()
    console.print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, variable length: {HAS_VARLEN}")
    columns = ("width", "jets", "ours, ms", "padded, ms", "longest, ms", "graphed, ms", "ratio", "TFLOP/s")
    table = Table(*columns)
    for dim in DIMS:
        for copies in COPIES:
            table.add_row(*_row(dim, copies))
    console.print(table)


def _row(dim: int, copies: int) -> list[str]:
    jets = batch(copies=copies).to("cuda")
    torch.manual_seed(dim)
    model = SetTransformer(dim, 10).cuda()
    ways: dict[str, Callable[[SetTransformer], Tensor]] = {
        "ours": lambda own: own(jets),
        "padded": lambda own: padded_logits(own, jets, PADDED_TO),
        "longest": lambda own: padded_logits(own, jets),
    }
    with torch.autocast("cuda", torch.bfloat16), torch.no_grad():
        logits = [way(model).float() for way in ways.values()]
    for other in logits[1:]:
        torch.testing.assert_close(logits[0], other, rtol=0, atol=0.05)
    times = {}
    for name, way in ways.items():
        own = copy.deepcopy(model)
        times[name] = _milliseconds(_step(own, lambda own=own, way=way: way(own), jets.labels_B))
    times["graphed"] = _graphed(copy.deepcopy(model), jets)
    rate = model.flops(jets.lengths_B) / times["ours"] / 1e9
    cells = [f"{times[name]:.2f}" for name in ("ours", "padded", "longest", "graphed")]
    return [str(dim), str(jets.n_jets), *cells, f"{times['padded'] / times['ours']:.1f}", f"{rate:.1f}"]


def _step(
    model: SetTransformer, forward: Callable[[], Tensor], labels_B: Tensor, capturable: bool = False
) -> Callable[[], None]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True, capturable=capturable)

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = functional.cross_entropy(forward().float(), labels_B)
        loss.backward()
        optimiser.step()

    return step


def _graphed(model: SetTransformer, jets: JetBatch) -> float:
    """Milliseconds of the padded step as one CUDA graph, on inputs that lie still on the GPU."""
    assert jets.pid_T is not None
    x_BLF, pid_BL = (pad(rows, jets.lengths_B, PADDED_TO) for rows in (jets.x_TF, jets.pid_T))
    mask_B11L = (torch.arange(PADDED_TO + 1) <= jets.lengths_B[:, None]).cuda()[:, None, None, :]

    def forward() -> Tensor:
        assert model.pid is not None
        x_BLD = model.embed(x_BLF) + model.pid(pid_BL)
        x_BLD = torch.cat([model.class_token.to(x_BLD.dtype).expand(len(x_BLD), 1, -1), x_BLD], dim=1)
        for block in model.blocks:
            assert isinstance(block, Block)
            x_BLD = padded_block(block, x_BLD, mask_B11L)
        logits_BK: Tensor = model.head(model.norm(x_BLD[:, 0]))
        return logits_BK

    step = _step(model, forward, jets.labels_B, capturable=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return _milliseconds(graph.replay)


def _milliseconds(step: Callable[[], None]) -> float:
    for _ in range(WARM_UP):
        step()
    times = []
    for _ in range(STEPS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


if __name__ == "__main__":
    main()

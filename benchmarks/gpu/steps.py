"""The step alone, without loader, loop and files: captured, eager, and what it cannot go below.

Shapes: B jets of a batch, K batches of a chunk, T constituents of the chunk, D width.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from jetscale.jets.batch import JetBatch
from jetscale.launch.probe import synthetic_batch
from jetscale.model.kernels.gpu.buffers import JetBuffers, Tables
from jetscale.model.kernels.gpu.optimiser import AdamWSettings, FlatState, table_row
from jetscale.model.kernels.gpu.step import DeviceEvaluation, DeviceStep
from jetscale.model.transformer import SetTransformer
from jetscale.training.captured.graphs import ready

DIMS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
QUICK = (8, 64, 128, 512)
EAGER = (8, 128, 512)
B, K, CAPACITY = 128, 64, 6_144
EVALUATED, EVALUATION_BATCH, EVALUATION_JETS = (8, 128, 512), 512, 100_000
ROUNDS = 5


def run(quick: bool) -> dict[str, Any]:
    """One row a width; times in milliseconds a step.

    Parameters
    ----------
    quick : some widths alone
    """
    rows: dict[str, Any] = {"batch": B, "capacity": CAPACITY}
    for dim in QUICK if quick else DIMS:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        torch.manual_seed(dim)
        model = SetTransformer(dim, 10).cuda()
        row: dict[str, Any] = {"n_params": sum(p.numel() for p in model.parameters())}
        if dim in EAGER:
            row["eager_ms"] = _eager(model)
        row |= _captured(model)
        row["floors"] = _floors(dim, row["kernels"])
        if dim in EVALUATED:
            row |= _evaluation(model)
        row["memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
        rows[str(dim)] = row
        print(dim, row, flush=True)
    return rows


def _captured(model: SetTransformer) -> dict[str, Any]:
    jets, tables = _chunk(B, K), Tables.allocate(K, "cuda")
    hyper = AdamWSettings()
    state = FlatState(model)
    rows = [table_row(1e-4, step + 1, hyper, 0.0) for step in range(K)]
    tables.rows_K4.copy_(torch.tensor(rows, dtype=torch.float32))
    step = DeviceStep(model, B, CAPACITY, state, jets, tables, hyper)
    replay = ready(step.train, [*state.tensors(), tables.losses, tables.k, jets.first])

    def chunk() -> None:
        jets.first.zero_()
        tables.k.zero_()
        for _ in range(K):
            replay()

    found: dict[str, Any] = {"graph_ms": _milliseconds(chunk) / K}
    names = _kernels(chunk)
    found["kernels"] = round(sum(count for count, _ in names.values()) / K)
    found["microseconds_of"] = {
        name: [round(count / K, 2), round(spent / K, 2)]
        for name, (count, spent) in sorted(names.items(), key=lambda item: -item[1][1])[:16]
    }
    assert bool(tables.losses.isfinite().all())
    return found


def _evaluation(model: SetTransformer) -> dict[str, float]:
    """Milliseconds of 100,000 jets, and over the time of the forward products at the same shapes."""
    n_batches = K * B // EVALUATION_BATCH
    jets = _chunk(EVALUATION_BATCH, n_batches)
    n_jets = len(jets.labels)
    capacity = EVALUATION_BATCH * CAPACITY // B
    losses_J = torch.zeros(n_jets, device="cuda")
    correct_J = torch.zeros(n_jets, dtype=torch.uint8, device="cuda")
    weights = FlatState(model).weights
    step = DeviceEvaluation(model, EVALUATION_BATCH, capacity, weights, jets, losses_J, correct_J)
    replay = ready(step.evaluate, [jets.first, losses_J, correct_J])

    def chunk() -> None:
        jets.first.zero_()
        for _ in range(n_batches):
            replay()

    scale = EVALUATION_JETS / n_jets
    ours = _milliseconds(chunk) * scale
    products = _milliseconds(_products(model.dim, _tokens(EVALUATION_BATCH), backward=False))
    products *= n_batches * scale
    return {"evaluation_ms": ours, "evaluation_ratio": ours / products}


def _floors(dim: int, kernels: int) -> dict[str, float]:
    """Times that the step cannot go below, each measured as one graph."""
    stream_SD = torch.zeros(CAPACITY, dim, device="cuda")
    copy_SD = torch.empty_like(stream_SD)
    one = torch.zeros(1, device="cuda")

    def launches() -> None:
        for _ in range(kernels):
            one.add_(1)

    return {
        "products_ms": _milliseconds(_products(dim, _tokens(B), backward=True)),
        "launches_ms": _milliseconds(ready(launches, [one])),
        "copy_ms": _milliseconds(ready(lambda: copy_SD.copy_(stream_SD), [copy_SD])),
    }


def _products(dim: int, n_tokens: int, backward: bool) -> Callable[[], None]:
    """The weight products of four blocks on all tokens in bfloat16, with both gradients."""
    shapes = ((3 * dim, dim), (dim, dim), (4 * dim, dim), (dim, 2 * dim))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)

    operands = [(random(n_tokens, i), random(n_tokens, o), random(o, i)) for o, i in shapes]
    outputs = [(torch.empty_like(y), torch.empty_like(x), torch.empty_like(w)) for x, y, w in operands]

    def products() -> None:
        for _ in range(4):
            for (x, y, w), (out_y, out_x, out_w) in zip(operands, outputs, strict=True):
                torch.mm(x, w.t(), out=out_y)
                if backward:
                    torch.mm(y, w, out=out_x)
                    torch.mm(y.t(), x, out=out_w)

    return ready(products, [tensor for triple in outputs for tensor in triple])


def _eager(model: SetTransformer) -> float:
    import copy

    own = copy.deepcopy(model)
    jets = synthetic_batch(own, B).to("cuda")
    optimizer = torch.optim.AdamW(own.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            logits_BK = own(jets)
        functional.cross_entropy(logits_BK.float(), jets.labels_B).backward()
        optimizer.step()

    for _ in range(5):
        step()
    return _milliseconds(lambda: [step() for _ in range(10)]) / 10


def _tokens(batch_size: int) -> int:
    jets = _lengths(batch_size)
    return int(jets.sum()) + batch_size


def _lengths(batch_size: int) -> Tensor:
    return _jets(batch_size).lengths_B


def _jets(batch_size: int) -> JetBatch:
    with torch.device("meta"):
        model = SetTransformer(8, 10)
    return synthetic_batch(model, batch_size)


def _chunk(batch_size: int, n_batches: int) -> JetBuffers:
    """A chunk whose batches all are the same jets, as the store would hold them."""
    batch = _jets(batch_size)
    n_jets = batch_size * n_batches
    lengths_J = batch.lengths_B.repeat(n_batches)
    offsets_J1 = torch.cat([torch.zeros(1, dtype=torch.int64), lengths_J.cumsum(0)])
    total = int(offsets_J1[-1])
    made = JetBuffers.allocate(total, n_jets, torch.zeros(8), torch.ones(8), "cuda", max_constituents=128)
    made.x.copy_(batch.x_TF.half().repeat(n_batches, 1))
    made.pid.copy_(torch.arange(total) % 8 + 1)
    made.offsets.copy_(offsets_J1)
    made.labels.copy_(batch.labels_B.repeat(n_batches))
    return made


def _kernels(work: Callable[[], object]) -> dict[str, tuple[int, float]]:
    """Launches, and their microseconds in all, by name of the kernel."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        work()
        torch.cuda.synchronize()
    counts: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for event in seen.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            counts[event.name[:80]] += 1
            spent[event.name[:80]] += event.device_time_total
    return {name: (counts[name], float(spent[name])) for name in counts}


def _milliseconds(work: Callable[[], object]) -> float:
    """Median over rounds, by the card's own clock."""
    work()
    work()
    times = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)

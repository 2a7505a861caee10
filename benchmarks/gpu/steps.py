"""The step alone, without loader, loop and files: captured, eager, and what it cannot go below.

Shapes: B jets of a batch, K batches of a chunk, T constituents of the chunk, D width.
"""

from __future__ import annotations

import copy
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu.session import Session
from jetscale.launch.probe import synthetic_batch
from jetscale.model.kernels.gpu.optimiser import FlatState
from jetscale.model.kernels.gpu.step import DeviceEvaluation
from jetscale.model.transformer import SetTransformer
from jetscale.training.captured.alone import chunk_of, steps_alone
from jetscale.training.captured.graphs import ready

DIMS = (8, 512, 128, 64, 256, 32, 16, 24, 48, 96, 192, 384)  # should the time run out, the ends are known
QUICK = (8, 512, 128)
EAGER = (8, 128, 512)
B, K = 128, 64
EVALUATION_BATCH, EVALUATION_JETS = 512, 100_000
ROUNDS = 5


def run(session: Session, dims: Sequence[int]) -> None:
    """One row a width; times in milliseconds a step.

    Parameters
    ----------
    session : takes the rows
    dims : widths
    """
    session.results["steps"]["batch"] = B
    for dim in dims:
        session.row("steps", str(dim), partial(_row, dim))


def launch_once(dim: int) -> None:
    """Launch each kernel of a row that is our own: what is not compiled yet is compiled.

    Parameters
    ----------
    dim : width
    """
    model = _model(dim)
    _training(model)()
    _evaluating(model)[0]()
    torch.cuda.synchronize()


def _model(dim: int) -> SetTransformer:
    torch.manual_seed(dim)
    return SetTransformer(dim, 10).cuda()


def _row(dim: int) -> dict[str, Any]:
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = _model(dim)
    row: dict[str, Any] = {"n_params": sum(p.numel() for p in model.parameters())}
    if dim in EAGER:
        row["eager_ms"] = _eager(model)
    row |= _captured(model)
    row["floors"] = _floors(model, row["kernels"])
    row |= _evaluation(model)
    row["memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return row


def _training(model: SetTransformer) -> Callable[[], None]:
    """A chunk of K steps."""
    return steps_alone(model, synthetic_batch(model, B), K)


def _captured(model: SetTransformer) -> dict[str, Any]:
    chunk = _training(model)
    found: dict[str, Any] = {"graph_ms": _milliseconds(chunk) / K}
    names = _kernels(chunk)
    found["kernels"] = round(sum(count for count, _ in names.values()) / K)
    found["microseconds_of"] = {
        name: [round(count / K, 2), round(spent / K, 2)]
        for name, (count, spent) in sorted(names.items(), key=lambda item: -item[1][1])[:16]
    }
    return found


def _evaluating(model: SetTransformer) -> tuple[Callable[[], None], int]:
    """What evaluates a chunk of jets, and how many batches they are."""
    n_batches = K * B // EVALUATION_BATCH
    jets = chunk_of(synthetic_batch(model, EVALUATION_BATCH), n_batches, model.class_token.device)
    n_jets = len(jets.labels)
    capacity = -(-_tokens(model, EVALUATION_BATCH) // 256) * 256
    losses_J = torch.zeros(n_jets, device="cuda")
    correct_J = torch.zeros(n_jets, dtype=torch.uint8, device="cuda")
    weights = FlatState(model).weights
    step = DeviceEvaluation(model, EVALUATION_BATCH, capacity, weights, jets, losses_J, correct_J)
    replay = ready(step.evaluate, [jets.first, losses_J, correct_J])

    def chunk() -> None:
        jets.first.zero_()
        for _ in range(n_batches):
            replay()

    return chunk, n_batches


def _evaluation(model: SetTransformer) -> dict[str, float]:
    """Milliseconds of 100,000 jets, and over the time of the forward products at the same shapes."""
    chunk, n_batches = _evaluating(model)
    scale = EVALUATION_JETS / (n_batches * EVALUATION_BATCH)
    ours = _milliseconds(chunk) * scale
    products = _milliseconds(_products(model.dim, _tokens(model, EVALUATION_BATCH), backward=False))
    products *= n_batches * scale
    return {"evaluation_ms": ours, "evaluation_ratio": ours / products}


def _floors(model: SetTransformer, kernels: int) -> dict[str, float]:
    """Times that the step cannot go below, each measured as one graph."""
    stream_SD = torch.zeros(_tokens(model, B), model.dim, device="cuda")
    copy_SD = torch.empty_like(stream_SD)
    one = torch.zeros(1, device="cuda")

    def launches() -> None:
        for _ in range(kernels):
            one.add_(1)

    return {
        "products_ms": _milliseconds(_products(model.dim, _tokens(model, B), backward=True)),
        "launches_ms": _milliseconds(ready(launches, [one])),
        "copy_ms": _milliseconds(ready(lambda: copy_SD.copy_(stream_SD), [copy_SD])),
    }


def _products(dim: int, n_tokens: int, backward: bool) -> Callable[[], None]:
    """Products of weights with all tokens, in bfloat16: of three blocks, and keys and values of the last.

    With `backward` the gradients of inputs and weights too.
    """
    block = ((3 * dim, dim), (dim, dim), (4 * dim, dim), (dim, 2 * dim))
    last = (2 * dim, dim)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)

    operands = {
        shape: (random(n_tokens, shape[1]), random(n_tokens, shape[0]), random(*shape))
        for shape in (*block, last)
    }
    outputs = {
        shape: (torch.empty_like(y), torch.empty_like(x), torch.empty_like(w))
        for shape, (x, y, w) in operands.items()
    }

    def products() -> None:
        for shape in (*block, *block, *block, last):
            (x, y, w), (out_y, out_x, out_w) = operands[shape], outputs[shape]
            torch.mm(x, w.t(), out=out_y)
            if backward:
                torch.mm(y, w, out=out_x)
                torch.mm(y.t(), x, out=out_w)

    return ready(products, [tensor for triple in outputs.values() for tensor in triple])


def _eager(model: SetTransformer) -> float:
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


def _tokens(model: SetTransformer, batch_size: int) -> int:
    return int(synthetic_batch(model, batch_size).lengths_B.sum()) + batch_size


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

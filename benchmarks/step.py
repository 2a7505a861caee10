"""Time of a training step, compared with the same network on padded jets and with bare matrix products.

    python -m benchmarks.step

One step is forward, backward and fused AdamW on 128 jets of 40 constituents on average, one thread. All ways
start from the same weights, and their losses and gradients are compared before anything is timed.

The arithmetic rate counts executed operations (`SetTransformer.flops`) over the whole step,
against a block's weight products alone, at their own sizes and by the fastest routine known for them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.measure import Rows, in_turn, share, speedup
from jetscale.common.paper import MEAN_CONSTITUENTS
from jetscale.jets.batch import JetBatch
from jetscale.model.kernels.cpu import operations_for, products
from jetscale.model.operations import PLAIN
from jetscale.model.reference import padded_logits
from jetscale.model.transformer import Block, SetTransformer

JETS = 128
PADDED_TO = 128
SPREAD = 17  # standard deviation of the multiplicity in the public sample of JetClass-II jets
TARGETS_PADDED = {8: 12.0, 32: 12.0, 128: 10.0}
TARGETS_LONGEST = {8: 5.0, 32: 4.5, 128: 3.3}
TARGETS_ARITHMETIC = {128: 0.60, 256: 0.80}
WAYS = ("ours", "padded", "longest")
SECONDS_PER_DIM = 15.0
ROUNDS = 3, 60
SETTLE = 0.1  # seconds
# vector operations of 8 lanes per (query, key, head), see `jetscale.model.kernels.cpu.ragged`
ATTENTION_OPERATIONS = 33 + 58

Step = Callable[[], float]


def batch(seed: int = 0, copies: int = 1) -> JetBatch:
    """Random jets with a realistic spread of multiplicities, each of them `copies` times."""
    generator = torch.Generator().manual_seed(seed)
    lengths_B = MEAN_CONSTITUENTS + SPREAD * torch.randn(JETS, generator=generator)
    lengths_B = lengths_B.round().long().clamp(1, PADDED_TO)
    total = int(lengths_B.sum())
    return JetBatch(
        x_TF=torch.randn(total, 8, generator=generator).repeat(copies, 1),
        pid_T=torch.randint(1, 9, (total,), generator=generator).repeat(copies),
        lengths_B=lengths_B.repeat(copies),
        labels_B=torch.randint(10, (JETS,), generator=generator).repeat(copies),
        positions_B=torch.arange(JETS * copies),
    )


def training_step(model: SetTransformer, forward: Callable[[], Tensor], labels_B: Tensor) -> Step:
    """One optimiser step as a function that returns the loss before it."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> float:
        optimiser.zero_grad()
        loss = functional.cross_entropy(forward(), labels_B)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def ways(dim: int, names: tuple[str, ...] = WAYS) -> tuple[SetTransformer, dict[str, Step], Tensor]:
    """Make the step in each of these ways, check that they agree; with our model and the lengths."""
    torch.manual_seed(dim)
    ours = SetTransformer(dim, 10)
    padded, longest = copy.deepcopy(ours), copy.deepcopy(ours)
    jets = batch()
    forwards: dict[str, tuple[SetTransformer, Callable[[], Tensor]]] = {
        "ours": (ours, lambda: ours(jets)),
        "padded": (padded, lambda: padded_logits(padded, jets, PADDED_TO)),
        "longest": (longest, lambda: padded_logits(longest, jets)),
    }
    forwards = {name: forwards[name] for name in names}
    gradients = {}
    for name, (model, forward) in forwards.items():
        functional.cross_entropy(forward(), jets.labels_B).backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        torch.testing.assert_close(gradients["ours"], gradients[name], rtol=0, atol=1e-5)
    return ours, {n: training_step(m, f, jets.labels_B) for n, (m, f) in forwards.items()}, jets.lengths_B


def weight_products(model: SetTransformer, tokens: int) -> tuple[Step, int]:
    """All products with one block's weights, forward and backward, by the fastest routines; operations."""
    block = model.blocks[0]
    assert isinstance(block, Block)
    weights = [linear.weight.detach() for linear in (block.qkv, block.out, block.gate_up, block.down)]
    operands = [(torch.randn(tokens, w.shape[1]), torch.randn(tokens, w.shape[0]), w) for w in weights]

    def step() -> float:
        for x_SI, y_SO, weight_OI in operands:
            products.linear(x_SI, weight_OI)
            products.input_gradient(y_SO, weight_OI)
            products.weight_gradient(y_SO, x_SI, weight_OI)
        return 0.0

    return step, sum(3 * 2 * tokens * weight.numel() for weight in weights)


def floor_seconds(model: SetTransformer, lengths_B: Tensor, rate: float) -> float:
    """Least seconds of a step: products at `rate` (operations a second), and attention's vector operations.

    A vector of 8 multiplies and adds is 16 of the operations that `rate` counts. Reading and writing what
    lies between the products is left out: it can overlap with them.
    """
    tokens_B = lengths_B + 1
    pairs = int((tokens_B**2).sum())
    layers, heads = len(model.blocks) - 1, model.dim // model.head_dim
    attention = 14 * layers * model.dim * pairs  # what `flops` counts for it
    vectors = ATTENTION_OPERATIONS * layers * heads * pairs / 8
    return (model.flops(lengths_B, folded=True) - attention + 16 * vectors) / rate


def run(dims: tuple[int, ...] = (8, 32, 128), arithmetic_dims: tuple[int, ...] = (128, 256)) -> Rows:
    """Measure; ratios above 1 mean that ours is that many times faster (shares: of the GEMM rate)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows: Rows = {}
    try:
        for dim in sorted({*dims, *arithmetic_dims}):
            rows |= _rows_of(dim, dim in dims, dim in arithmetic_dims)
    finally:
        torch.set_num_threads(threads)
    return rows


def _rows_of(dim: int, padded: bool, arithmetic: bool) -> Rows:
    model, steps, lengths_B = ways(dim, WAYS if padded else WAYS[:1])
    steps["gemm"], gemm_flops = weight_products(model, int(lengths_B.sum()) + JETS)
    seconds = in_turn(steps, SECONDS_PER_DIM, ROUNDS, SETTLE)
    rate = gemm_flops / seconds["gemm"]
    floor = 1e3 * floor_seconds(model, lengths_B, rate)
    rows: Rows = {}
    for way, targets in (("padded", TARGETS_PADDED), ("longest", TARGETS_LONGEST)):
        if way in seconds:
            times = 1e3 * seconds["ours"], 1e3 * seconds[way]
            rows[f"step_dim{dim}_vs_{way}"] = speedup(*times, targets.get(dim, 1.0), "ms/step", floor=floor)
    if arithmetic:
        folded = operations_for(model.head_dim, model.class_token) is not PLAIN
        ours = model.flops(lengths_B, folded=folded) / seconds["ours"]
        target = TARGETS_ARITHMETIC.get(dim, 0.0)
        rows[f"arithmetic_dim{dim}"] = share(1e-9 * ours, 1e-9 * rate, target, "GFLOP/s")
    return rows


def main() -> None:
    for name, r in run().items():
        print(
            f"{name:24} {r['ratio']:6.2f}  target {r['target']:5.2f}  {'met' if r['met'] else 'NOT met':7}  "
            f"ours {r['ours']:8.2f}  reference {r['reference']:8.2f} {r['unit']}"
        )


if __name__ == "__main__":
    main()

"""The end of the network and the beginning of its backward pass: norm, logits, cross-entropy, in one launch.

A program takes R jets. It passes over the width in chunks, so that a row of any width fits; what a pass needs
again is read again, from the cache.

Legend: B jets, R jets of a program, D width, K classes, P partial sums.

Sources: LayerNorm, Ba, Kiros and Hinton, arXiv:1607.06450; the gradient of the mean cross-entropy with
respect to the logits is (softmax - one hot) / B.
"""

# triton has no types
# mypy: disable-error-code="no-untyped-def,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from jetscale.model.kernels.gpu.buffers import Gradients, JetBuffers, Weights
from jetscale.model.kernels.gpu.embedding import EPSILON

ROWS = 16
"""Jets of a program, R."""
NAMES = ("norm.weight", "head.weight", "head.bias")


def head_parts(batch_size: int) -> dict[str, int]:
    """Partial sums P of the gradients of the head and its norm, by name: one a program."""
    return dict.fromkeys(NAMES, triton.cdiv(batch_size, ROWS))


def head_step(
    x_BD: Tensor,
    branch_BD: Tensor | None,
    weights: Weights,
    jets: JetBuffers,
    batch_size: int,
    gradients: Gradients,
    losses_B: Tensor,
    correct_B: Tensor,
    d_x_BD: Tensor,
    d_branch_BD: Tensor,
    k: Tensor,
) -> None:
    """Loss of every jet of the batch and the gradients of their mean.

    Parameters
    ----------
    x_BD : (B, D) float32, class tokens after the last block
    branch_BD : (B, D) in the dtype of products, added to them; None for nothing
    weights : of the model
    jets, batch_size : labels are those of jets ``first`` to ``first + B - 1``
    gradients : takes the partial sums of `NAMES`, as many as `head_parts` says
    losses_B : (B,) float32, takes the cross-entropy of each jet in nats
    correct_B : (B,) uint8, takes whether the largest logit is the label's
    d_x_BD : (B, D) float32, takes the gradient of `x_BD`
    d_branch_BD : (B, D) in the dtype of products, takes the same numbers
    k : (1,) int32, steps begun in the chunk: one is added
    """
    _launch(
        x_BD, branch_BD, weights, jets, batch_size, losses_B, correct_B, (gradients, d_x_BD, d_branch_BD, k)
    )


def head_forward(
    x_BD: Tensor,
    branch_BD: Tensor | None,
    weights: Weights,
    jets: JetBuffers,
    batch_size: int,
    losses_B: Tensor,
    correct_B: Tensor,
) -> None:
    """Loss of every jet of the batch, for an evaluation; parameters as in `head_step`."""
    _launch(x_BD, branch_BD, weights, jets, batch_size, losses_B, correct_B, None)


def _launch(
    x_BD: Tensor,
    branch_BD: Tensor | None,
    weights: Weights,
    jets: JetBuffers,
    batch_size: int,
    losses_B: Tensor,
    correct_B: Tensor,
    backward: tuple[Gradients, Tensor, Tensor, Tensor] | None,
) -> None:
    n_classes, dim = weights.layout.slots["head.weight"].shape
    outputs: list[Tensor | None] = [None] * 6
    if backward is not None:
        gradients, *tensors = backward
        outputs = [*tensors, *(gradients.parts(name) for name in NAMES)]
    padded_classes = max(16, triton.next_power_of_2(n_classes))
    _head_kernel[(triton.cdiv(batch_size, ROWS),)](
        x_BD,
        branch_BD,
        weights.single("norm.weight"),
        weights.compute("head.weight"),
        weights.single("head.bias"),
        jets.labels,
        jets.first,
        losses_B,
        correct_B,
        *outputs,
        B=batch_size,
        D=dim,
        K=n_classes,
        R=ROWS,
        KP=padded_classes,
        CHUNK=min(64, max(16, triton.next_power_of_2(dim))),
        BRANCH=branch_BD is not None,
        TRAIN=backward is not None,
        num_warps=4,
    )


@triton.jit
def _chunk(X, BRANCH_X, rows, d, B: tl.constexpr, D: tl.constexpr, BRANCH: tl.constexpr):
    """Columns d of the rows, (R, chunk) float32; zero outside."""
    at = rows[:, None] * D + d[None, :]
    mask = (rows < B)[:, None] & (d < D)[None, :]
    x = tl.load(X + at, mask=mask, other=0.0)
    if BRANCH:
        x += tl.load(BRANCH_X + at, mask=mask, other=0.0).to(tl.float32)
    return x


@triton.jit
def _head_kernel(
    X, BRANCH_X, NORM, HEAD, BIAS, LABELS, FIRST, LOSSES, CORRECT,
    D_X, D_BRANCH, STEPS, NORM_PARTS, HEAD_PARTS, BIAS_PARTS,
    B: tl.constexpr, D: tl.constexpr, K: tl.constexpr, R: tl.constexpr, KP: tl.constexpr, CHUNK: tl.constexpr,
    BRANCH: tl.constexpr, TRAIN: tl.constexpr,
):  # fmt: skip
    """See `head_step`; HEAD (K, D) is in the dtype of products."""
    part = tl.program_id(0)
    rows = part * R + tl.arange(0, R)
    used = rows < B
    i = tl.arange(0, CHUNK)
    c = tl.arange(0, KP)
    dtype = HEAD.dtype.element_ty

    # mean, then variance about it: one pass with squares loses digits where the mean is large
    total = tl.zeros([R], tl.float32)
    for low in range(0, D, CHUNK):
        total += tl.sum(_chunk(X, BRANCH_X, rows, low + i, B, D, BRANCH), 1)
    mean = total / D
    total = tl.zeros([R], tl.float32)
    for low in range(0, D, CHUNK):
        x = _chunk(X, BRANCH_X, rows, low + i, B, D, BRANCH) - mean[:, None]
        total += tl.sum(tl.where((low + i < D)[None, :], x * x, 0.0), 1)
    over_sd = 1.0 / tl.sqrt(total / D + EPSILON)

    logits = tl.zeros([R, KP], tl.float32)
    for low in range(0, D, CHUNK):
        d = low + i
        norm = tl.load(NORM + d, mask=d < D, other=0.0)
        x = (_chunk(X, BRANCH_X, rows, d, B, D, BRANCH) - mean[:, None]) * over_sd[:, None] * norm[None, :]
        weight = tl.load(
            HEAD + c[None, :] * D + d[:, None], mask=(d < D)[:, None] & (c < K)[None, :], other=0.0
        )
        logits = tl.dot(x.to(dtype), weight, logits, input_precision="ieee")
    logits += tl.load(BIAS + c, mask=c < K, other=0.0)[None, :]
    logits = tl.where((c < K)[None, :], logits, -float("inf"))

    label = tl.load(LABELS + tl.load(FIRST) + rows, mask=used, other=0)
    hot = c[None, :] == label[:, None]
    largest = tl.max(logits, 1)
    powers = tl.exp(logits - largest[:, None])
    total = tl.sum(powers, 1)
    of_label = tl.sum(tl.where(hot, logits, 0.0), 1)
    tl.store(LOSSES + rows, tl.log(total) + largest - of_label, mask=used)
    # the first of equal logits wins, as in torch.argmax
    winner = tl.min(tl.where(logits == largest[:, None], c[None, :], KP), 1)
    tl.store(CORRECT + rows, (winner == label).to(tl.uint8), mask=used)

    if TRAIN:
        d_logits = tl.where(used[:, None], powers / total[:, None] - hot.to(tl.float32), 0.0) / B
        tl.store(BIAS_PARTS + part * K + c, tl.sum(d_logits, 0), mask=c < K)
        d_logits = d_logits.to(dtype)
        # means over the width of g and of g xhat, g being the gradient of xhat
        mean_g = tl.zeros([R], tl.float32)
        mean_gx = tl.zeros([R], tl.float32)
        for low in range(0, D, CHUNK):
            d = low + i
            wide = d < D
            norm = tl.load(NORM + d, mask=wide, other=0.0)
            xhat = (_chunk(X, BRANCH_X, rows, d, B, D, BRANCH) - mean[:, None]) * over_sd[:, None]
            weight = tl.load(
                HEAD + c[:, None] * D + d[None, :], mask=(c < K)[:, None] & wide[None, :], other=0.0
            )
            d_normed = tl.dot(d_logits, weight, input_precision="ieee")
            tl.store(NORM_PARTS + part * D + d, tl.sum(d_normed * xhat, 0), mask=wide)
            d_head = tl.dot(tl.trans(d_logits), (xhat * norm[None, :]).to(dtype), input_precision="ieee")
            at = part * K * D + c[:, None] * D + d[None, :]
            tl.store(HEAD_PARTS + at, d_head, mask=(c < K)[:, None] & wide[None, :])
            g = d_normed * norm[None, :]
            mean_g += tl.sum(g, 1) / D
            mean_gx += tl.sum(g * xhat, 1) / D
        for low in range(0, D, CHUNK):
            d = low + i
            wide = d < D
            norm = tl.load(NORM + d, mask=wide, other=0.0)
            xhat = (_chunk(X, BRANCH_X, rows, d, B, D, BRANCH) - mean[:, None]) * over_sd[:, None]
            weight = tl.load(
                HEAD + c[:, None] * D + d[None, :], mask=(c < K)[:, None] & wide[None, :], other=0.0
            )
            g = tl.dot(d_logits, weight, input_precision="ieee") * norm[None, :]
            d_x = over_sd[:, None] * (g - mean_g[:, None] - xhat * mean_gx[:, None])
            at = rows[:, None] * D + d[None, :]
            mask = used[:, None] & wide[None, :]
            tl.store(D_X + at, d_x, mask=mask)
            tl.store(D_BRANCH + at, d_x.to(dtype), mask=mask)
        if part == 0:
            tl.store(STEPS, tl.load(STEPS) + 1)  # no program of this launch reads it

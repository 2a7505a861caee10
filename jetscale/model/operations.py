"""What a block is made of, in plain PyTorch: the reference, and the way on CUDA, in half or double precision.

`jetscale.model.kernels.cpu` has the same operations for float32 on a CPU; a model takes either, whole.

Shapes: S tokens of the batch, T constituents, F features, B jets, D width, H heads, E channels of a head,
M = 2 D.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from jetscale.model import attention
from jetscale.model.packing import PackingPlan


@dataclass(frozen=True)
class Operations:
    """One way to compute the model; each function as its namesake in this module."""

    tokens: Callable[[Tensor, Tensor | None, Tensor, Tensor, Tensor | None, Tensor, PackingPlan], Tensor]
    attend: Callable[[Tensor, Tensor, Tensor, Tensor, int, PackingPlan], Tensor]
    attend_embedded: Callable[
        [
            Tensor, Tensor | None, Tensor, Tensor, Tensor | None, Tensor,
            Tensor, Tensor, Tensor, int, PackingPlan,
        ],
        Tensor,
    ]  # fmt: skip
    attend_class: Callable[[Tensor, Tensor, Tensor, Tensor, int, PackingPlan], Tensor]
    feed_forward: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def tokens(
    x_TF: Tensor,
    pid_T: Tensor | None,
    weight_DF: Tensor,
    bias_D: Tensor,
    table: Tensor | None,
    class_D: Tensor,
    plan: PackingPlan,
) -> Tensor:
    """Embed constituents, W x + b + table[pid], and put each jet's after a class token.

    Parameters
    ----------
    x_TF : (T, F) features
    pid_T, table : (T,) int64 identities and (entries, D) vectors, or both None
    weight_DF, bias_D, class_D : weights
    plan : layout of the batch

    Returns
    -------
    (S, D) tokens, in the precision of the weights.
    """
    x_TD = functional.linear(x_TF, weight_DF, bias_D).to(class_D.dtype)
    if pid_T is not None and table is not None:
        x_TD = x_TD + functional.embedding(pid_T, table)
    x_SD = x_TD.new_empty(plan.n_tokens, x_TD.shape[1]).index_copy(0, plan.constituent_rows, x_TD)
    return x_SD.index_copy(0, plan.class_rows, class_D.expand(plan.n_jets, -1))


def attend(
    x_SD: Tensor, norm_D: Tensor, qkv_weight: Tensor, out_weight: Tensor, head_dim: int, plan: PackingPlan
) -> Tensor:
    """Add the attention branch to the residual stream: x + W_out attention(W_qkv norm(x)).

    Parameters
    ----------
    x_SD : (S, D) packed tokens
    norm_D, qkv_weight, out_weight : (D,), (3 D, D), (D, D) weights
    head_dim : channels of a head
    plan : layout of the batch
    """
    qkv_S3HE = functional.linear(layer_norm(x_SD, norm_D), qkv_weight).view(len(x_SD), 3, -1, head_dim)
    return x_SD + functional.linear(attention.self_attention(qkv_S3HE, plan).flatten(1), out_weight)


def attend_embedded(
    x_TF: Tensor,
    pid_T: Tensor | None,
    weight_DF: Tensor,
    bias_D: Tensor,
    table: Tensor | None,
    class_D: Tensor,
    norm_D: Tensor,
    qkv_weight: Tensor,
    out_weight: Tensor,
    head_dim: int,
    plan: PackingPlan,
) -> Tensor:
    """`attend` on `tokens`: the first block of a model, where both can be computed in one.

    Parameters
    ----------
    x_TF, pid_T, weight_DF, bias_D, table, class_D : as in `tokens`
    norm_D, qkv_weight, out_weight, head_dim : as in `attend`
    plan : layout of the batch

    Returns
    -------
    (S, D) tokens.
    """
    x_SD = tokens(x_TF, pid_T, weight_DF, bias_D, table, class_D, plan)
    return attend(x_SD, norm_D, qkv_weight, out_weight, head_dim, plan)


def attend_class(
    x_SD: Tensor, norm_D: Tensor, qkv_weight: Tensor, out_weight: Tensor, head_dim: int, plan: PackingPlan
) -> Tensor:
    """Compute the rows of `attend` that belong to class tokens, and no others.

    Keys and values are computed for every token, queries for class tokens alone.

    Parameters
    ----------
    x_SD, norm_D, qkv_weight, out_weight, head_dim, plan : as in `attend`

    Returns
    -------
    (B, D) class tokens.
    """
    normed_SD = layer_norm(x_SD, norm_D)
    q_weight, kv_weight = qkv_weight.tensor_split([x_SD.shape[1]])
    q_BHE = functional.linear(normed_SD[plan.class_rows], q_weight).view(plan.n_jets, -1, head_dim)
    kv_S2HE = functional.linear(normed_SD, kv_weight).view(plan.n_tokens, 2, -1, head_dim)
    attended_BHE = attention.class_attention(q_BHE, kv_S2HE, plan)
    return x_SD[plan.class_rows] + functional.linear(attended_BHE.flatten(1), out_weight)


def feed_forward(x_SD: Tensor, norm_D: Tensor, gate_up_weight: Tensor, down_weight: Tensor) -> Tensor:
    """Add the SwiGLU branch to the residual stream: x + W_down (silu(gate) up), [gate, up] = W norm(x).

    Parameters
    ----------
    x_SD : (rows, D) tokens
    norm_D, gate_up_weight, down_weight : (D,), (2 M, D), (D, M) weights
    """
    gate_SM, up_SM = functional.linear(layer_norm(x_SD, norm_D), gate_up_weight).chunk(2, dim=1)
    return x_SD + functional.linear(functional.silu(gate_SM) * up_SM, down_weight)


def layer_norm(x_SD: Tensor, weight_D: Tensor) -> Tensor:
    """Norm each row: (x - mean) / sqrt(variance + 1e-5) weight.

    Parameters
    ----------
    x_SD, weight_D : (S, D) rows and (D,) scale

    Returns
    -------
    (S, D).
    """
    return functional.layer_norm(x_SD, weight_D.shape, weight_D)


PLAIN = Operations(tokens, attend, attend_embedded, attend_class, feed_forward)

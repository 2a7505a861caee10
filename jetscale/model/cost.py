"""What a model costs: its size N by kind of parameter, and floating-point operations.

Two counts of operations, never mixed: the paper's C = 6 N n_p per jet (`flops_6n`), which defines compute in
every fit, and the operations that this implementation carries out (`executed_flops`), for comparison with
what the hardware can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from jetscale.model.transformer import SetTransformer


@dataclass(frozen=True)
class ParameterCounts:
    """Number of parameters by kind.

    Attributes
    ----------
    embedding : input projection and particle-identity embedding
    class_token : the learnable class token
    blocks : weight matrices of the blocks, 10 D^2 each
    norms : scales of every layer norm
    head : classification head, the only part that depends on the task
    """

    embedding: int
    class_token: int
    blocks: int
    norms: int
    head: int

    @property
    def total(self) -> int:
        """N of the fits: everything."""
        return self.embedding + self.class_token + self.blocks + self.norms + self.head


def count_parameters(model: SetTransformer) -> ParameterCounts:
    """Count a model's parameters by kind; every parameter is in exactly one."""
    counts = dict.fromkeys(("embedding", "class_token", "blocks", "norms", "head"), 0)
    for name, parameter in model.named_parameters():
        counts[parameter_kind(name)] += parameter.numel()
    return ParameterCounts(**counts)


def parameter_kind(name: str) -> str:
    """Kind, a field of `ParameterCounts`, of the parameter of this name.

    Raises
    ------
    ValueError
        for a name that `SetTransformer` does not have.
    """
    module, _, _ = name.partition(".")
    if name.endswith("norm.weight"):
        return "norms"
    kinds = {
        "embed": "embedding",
        "pid": "embedding",
        "class_token": "class_token",
        "blocks": "blocks",
        "head": "head",
    }
    if module not in kinds:
        raise ValueError(f"no parameter of the set transformer is called {name!r}")
    return kinds[module]


def flops_6n(n_params: int, constituents: float) -> float:
    """Training compute of the paper, C = 6 N n_p summed over jets.

    Parameters
    ----------
    n_params : N
    constituents : constituents of all the jets together; MEAN_CONSTITUENTS times jets for the paper's C

    Returns
    -------
    float, since 6 N D overflows 64-bit integers at scale.
    """
    return 6.0 * n_params * constituents


def executed_flops(
    model: SetTransformer,
    lengths_B: Tensor | Sequence[int],
    backward: bool = True,
    folded: bool = False,
) -> int:
    """Operations in the matrix products of one step on these jets, as executed.

    Counts 2 m n k for every product, on real tokens only (no padding), with the last block's query and
    feed-forward for class tokens alone. The backward pass is twice the forward, but the features need no
    gradient and fused attention makes its scores again: 5 products for 2.

    Parameters
    ----------
    model : gives width, heads, depth, features and classes
    lengths_B : constituents per jet
    backward : count forward and backward, else the forward alone
    folded : as `jetscale.model.kernels.cpu` does and plain PyTorch does not: the first block makes queries,
        keys and values from features instead of tokens, and the last block applies its key and value weights
        to class tokens instead of to all
    """
    tokens_B = [int(length) + 1 for length in lengths_B]
    dim, depth, n_features = model.class_token.numel(), len(model.blocks), model.embed.in_features
    n_jets, n_tokens = len(tokens_B), sum(tokens_B)
    pairs = sum(tokens**2 for tokens in tokens_B)
    # products whose input needs a gradient too, and those that act on features, whose input does not
    linear = (
        2 * dim**2 * (8 * n_jets + 10 * (depth - 1) * n_tokens) + 2 * n_jets * dim * model.head.out_features
    )
    on_features = 2 * dim * n_features * (n_tokens - n_jets)
    attention = (depth - 1) * 4 * dim * pairs
    if folded:
        linear += 2 * dim**2 * 2 * n_jets + 4 * (dim // model.head_dim) * dim * n_tokens
        if depth > 1:
            n_vectors = n_features + (1 if model.pid is None else model.pid.num_embeddings) + 1
            linear += 2 * 3 * dim**2 * (n_vectors - n_tokens)
            on_features *= 4
    else:
        linear += 2 * dim**2 * 2 * n_tokens
        attention += 4 * dim * n_tokens
    if not backward:
        return on_features + linear + attention
    return 2 * on_features + 3 * linear + attention * 7 // 2

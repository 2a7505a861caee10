"""The set transformer: constituents of a jet in, logits of its class out.

Source: arXiv:2606.19781, section "Model", as pinned down in docs: pre-norm blocks without biases, SwiGLU
feed-forward of hidden size 2 D, head dimension 8, no positional encoding, a learnable class token. One block
has 10 D^2 weights: 4 D^2 in attention, 6 D^2 in the feed-forward.

Shapes: T constituents of the batch, B jets, F features, D width, S = T + B tokens (the class token of a jet
before its constituents), H heads, E channels of a head, M = 2 D, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jetscale.jets.batch import JetBatch
from jetscale.model.kernels.cpu import operations_for
from jetscale.model.network import Network, init_normal
from jetscale.model.operations import Operations
from jetscale.model.packing import PackingPlan

# x_TF, pid_T, and the weights of `operations.tokens`
Embedding = tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor | None, Tensor]


class Block(nn.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + SwiGLU(norm(x)); no biases.

    Parameters
    ----------
    dim : width D
    head_dim : channels of a head E, a divisor of D
    depth : number of blocks in the model; the initial output of each branch is scaled by 1 / sqrt(2 depth)
    """

    def __init__(self, dim: int, head_dim: int, depth: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.attention_norm = nn.LayerNorm(dim, bias=False)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.feedforward_norm = nn.LayerNorm(dim, bias=False)
        self.gate_up = nn.Linear(dim, 4 * dim, bias=False)
        self.down = nn.Linear(2 * dim, dim, bias=False)
        for linear, gain in (
            (self.qkv, 1.0),
            (self.out, (2 * depth) ** -0.5),
            (self.gate_up, 1.0),
            (self.down, (2 * depth) ** -0.5),
        ):
            init_normal(linear.weight, gain)

    def forward(self, x_SD: Tensor, plan: PackingPlan, ops: Operations) -> Tensor:
        """Apply the block to every token.

        Parameters
        ----------
        x_SD : (S, D) tokens
        plan, ops : layout of the batch, and how to compute it

        Returns
        -------
        (S, D) tokens.
        """
        x_SD = ops.attend(
            x_SD, self.attention_norm.weight, self.qkv.weight, self.out.weight, self.head_dim, plan
        )
        return ops.feed_forward(x_SD, self.feedforward_norm.weight, self.gate_up.weight, self.down.weight)

    def embedded_forward(self, embedding: Embedding, plan: PackingPlan, ops: Operations) -> Tensor:
        """Apply the block to constituents that are not embedded yet: `forward` on their tokens.

        Parameters
        ----------
        embedding : constituents and the weights that make tokens of them, see `operations.tokens`
        plan, ops : layout of the batch, and how to compute it

        Returns
        -------
        (S, D) tokens.
        """
        x_SD = ops.attend_embedded(
            *embedding,
            self.attention_norm.weight,
            self.qkv.weight,
            self.out.weight,
            self.head_dim,
            plan,
        )
        return ops.feed_forward(x_SD, self.feedforward_norm.weight, self.gate_up.weight, self.down.weight)

    def class_forward(self, x_SD: Tensor, plan: PackingPlan, ops: Operations) -> Tensor:
        """Compute the rows of `forward` that the head reads.

        Parameters
        ----------
        x_SD : (S, D) tokens
        plan, ops : layout of the batch, and how to compute it

        Returns
        -------
        (B, D) class tokens.
        """
        x_BD = ops.attend_class(
            x_SD, self.attention_norm.weight, self.qkv.weight, self.out.weight, self.head_dim, plan
        )
        return ops.feed_forward(x_BD, self.feedforward_norm.weight, self.gate_up.weight, self.down.weight)


class SetTransformer(Network):
    """Classify jets from their constituents, without padding.

    Parameters
    ----------
    dim : width D, a multiple of `head_dim`; the one dial of the model's size
    n_classes : K
    n_features : F, continuous inputs of a constituent
    n_pid : entries of the particle-identity embedding; 0 for a feature set without an integer identity
    depth : number of blocks
    head_dim : channels of an attention head

    Weights are drawn from PyTorch's global generator: seed it first.

    Raises
    ------
    ValueError
        when `dim` is not a positive multiple of `head_dim`.
    """

    arch = "transformer"
    options = ("depth", "head_dim")

    def __init__(
        self, dim: int, n_classes: int, n_features: int = 8, n_pid: int = 9, depth: int = 4, head_dim: int = 8
    ) -> None:
        super().__init__(dim, n_classes, n_features, n_pid)
        if dim < head_dim or dim % head_dim:
            raise ValueError(f"model.dim={dim} must be a positive multiple of the head dimension {head_dim}")
        self.head_dim = head_dim
        self.embed = nn.Linear(n_features, dim)
        self.pid = nn.Embedding(n_pid, dim) if n_pid else None
        self.class_token = nn.Parameter(torch.empty(dim))
        self.blocks = nn.ModuleList(Block(dim, head_dim, depth) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, bias=False)
        self.head = nn.Linear(dim, n_classes)
        init_normal(self.embed.weight)
        nn.init.zeros_(self.embed.bias)
        # Not zero: a zero token has no direction for LayerNorm to keep, only rounding.
        nn.init.normal_(self.class_token)
        # Small: the first loss is that of the uniform guess, ln K.
        init_normal(self.head.weight, 0.1)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: JetBatch) -> Tensor:
        """Logits (B, K), see `Network.forward`."""
        self.check_inputs(batch)
        plan = PackingPlan(batch.lengths_B, batch.x_TF.device)
        ops = operations_for(self.head_dim, batch.x_TF, self.class_token)
        table = None if self.pid is None else self.pid.weight
        embedding = batch.x_TF, batch.pid_T, self.embed.weight, self.embed.bias, table, self.class_token
        first, last = self.blocks[0], self.blocks[-1]
        assert isinstance(first, Block)
        assert isinstance(last, Block)
        x_SD = ops.tokens(*embedding, plan) if first is last else first.embedded_forward(embedding, plan, ops)
        for block in self.blocks[1:-1]:
            x_SD = block(x_SD, plan, ops)
        logits_BK: Tensor = self.head(self.norm(last.class_forward(x_SD, plan, ops)))
        return logits_BK

    def parameter_kind(self, name: str) -> str:
        """As `Network.parameter_kind`; the class token is one kind."""
        return "class_token" if name == "class_token" else super().parameter_kind(name)

    def flops(self, lengths_B: Tensor | Sequence[int], backward: bool = True, folded: bool = False) -> int:
        """Operations in the matrix products of one step on these jets, as executed.

        Counts 2 m n k for every product, on real tokens only (no padding), with the last block's query and
        feed-forward for class tokens alone. The backward pass is twice the forward, but the features need no
        gradient, and fused attention computes its scores again: 5 products for 2.

        Parameters
        ----------
        lengths_B : (B,) constituents of each jet
        backward : count the forward and the backward pass; otherwise the forward pass alone
        folded : as `jetscale.model.kernels.cpu` does and plain PyTorch does not: the first block makes
            queries, keys and values from features instead of tokens, and the last block applies its key and
            value weights to class tokens instead of to all
        """
        tokens_B = [int(length) + 1 for length in lengths_B]
        dim, depth = self.dim, len(self.blocks)
        n_jets, n_tokens = len(tokens_B), sum(tokens_B)
        pairs = sum(tokens**2 for tokens in tokens_B)
        # products whose input needs a gradient too, and those that act on features, whose input does not
        linear = 2 * dim**2 * (8 * n_jets + 10 * (depth - 1) * n_tokens) + 2 * n_jets * dim * self.n_classes
        on_features = 2 * dim * self.n_features * (n_tokens - n_jets)
        attention = (depth - 1) * 4 * dim * pairs
        if folded:
            linear += 2 * dim**2 * 2 * n_jets + 4 * (dim // self.head_dim) * dim * n_tokens
            if depth > 1:
                n_vectors = self.n_features + max(self.n_pid, 1) + 1
                linear += 2 * 3 * dim**2 * (n_vectors - n_tokens)
                on_features *= 4
        else:
            linear += 2 * dim**2 * 2 * n_tokens
            attention += 4 * dim * n_tokens
        if not backward:
            return on_features + linear + attention
        return 2 * on_features + 3 * linear + attention * 7 // 2

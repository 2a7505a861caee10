"""Where each jet's tokens lie in a batch without padding, and how jets of like length are grouped.

Shapes: B jets, T constituents, S = T + B tokens (a class token before the constituents of each jet),
L tokens of the longest jet in a bucket, N jets in a bucket.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_BUCKETS = 8
# Cost of attention for one bucket in units of one (query, key) pair: N (L^2 + PER_TOKEN L) + PER_BUCKET.
# Fitted by hand to fused attention at widths 8 to 128 on one CPU core; the optimum is flat.
PER_TOKEN = 32
PER_BUCKET = 4_000


@dataclass(frozen=True)
class Bucket:
    """Jets padded to a common length for one call of dense attention.

    Attributes
    ----------
    jets_N : (N,) int64, index of each jet in the batch
    rows_NL : (N, L) int64, row of each token among the S; padding repeats the jet's class token
    valid_NL : (N, L) bool, False where padded; None when every jet has L tokens
    """

    jets_N: Tensor
    rows_NL: Tensor
    valid_NL: Tensor | None


class PackingPlan:
    """Layout of one batch, made once and shared by all layers.

    Parameters
    ----------
    lengths_B : (B,) integer, constituents per jet, on the CPU
    device : where the tokens live

    Attributes
    ----------
    starts_B1 : (B + 1,) int64 numpy array, row of each jet's class token, then S
    n_jets, n_tokens, longest : B, S, tokens of the longest jet

    Raises
    ------
    ValueError
        when lengths are not a one-dimensional CPU tensor of positive integers.
    """

    def __init__(self, lengths_B: Tensor, device: torch.device) -> None:
        check_lengths(lengths_B)
        self.device = device
        tokens_B = lengths_B.numpy().astype(np.int64) + 1
        self.starts_B1: NDArray[np.int64] = np.concatenate([[0], np.cumsum(tokens_B)])
        self.n_jets = len(tokens_B)
        self.n_tokens = int(self.starts_B1[-1])
        self.longest = int(tokens_B.max())

    @cached_property
    def class_rows(self) -> Tensor:
        """(B,) int64, rows of the class tokens."""
        return self._to_device(self.starts_B1[:-1])

    @cached_property
    def constituent_rows(self) -> Tensor:
        """(T,) int64, rows of the constituents."""
        return self._to_device(np.delete(np.arange(self.n_tokens), self.starts_B1[:-1]))

    @cached_property
    def offsets(self) -> Tensor:
        """(B + 1,) int32, the offsets a variable-length attention kernel wants."""
        return self._to_device(self.starts_B1.astype(np.int32))

    @cached_property
    def class_offsets(self) -> Tensor:
        """(B + 1,) int32, offsets of one query per jet."""
        return self._to_device(np.arange(self.n_jets + 1, dtype=np.int32))

    @cached_property
    def buckets(self) -> list[Bucket]:
        """Jets grouped by length, for dense attention without much padding."""
        tokens_B = np.diff(self.starts_B1)
        order_B = np.argsort(tokens_B, kind="stable")
        edges = bucket_edges(tokens_B[order_B])
        return [self._bucket(order_B[low:high]) for low, high in pairwise(edges)]

    @cached_property
    def token_order(self) -> Tensor:
        """(S,) int64, place of each token in the concatenation of the buckets' valid tokens."""
        rows = [b.rows_NL.flatten() if b.valid_NL is None else b.rows_NL[b.valid_NL] for b in self.buckets]
        return torch.argsort(torch.cat(rows))

    @cached_property
    def jet_order(self) -> Tensor:
        """(B,) int64, place of each jet in the concatenation of the buckets."""
        return torch.argsort(torch.cat([b.jets_N for b in self.buckets]))

    def _bucket(self, jets_N: NDArray[np.int64]) -> Bucket:
        tokens_N = np.diff(self.starts_B1)[jets_N]
        place_L = np.arange(tokens_N.max())
        valid_NL = place_L < tokens_N[:, None]
        rows_NL = self.starts_B1[jets_N][:, None] + np.where(valid_NL, place_L, 0)
        return Bucket(
            jets_N=self._to_device(jets_N),
            rows_NL=self._to_device(rows_NL),
            valid_NL=None if valid_NL.all() else self._to_device(valid_NL),
        )

    def _to_device(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, non_blocking=True)


def check_lengths(lengths_B: Tensor) -> None:
    """Raise where `lengths_B` cannot be the constituents of the jets of a batch.

    Parameters
    ----------
    lengths_B : (B,) integer, on the CPU

    Raises
    ------
    ValueError
        It is not a one-dimensional integer tensor on the CPU, is empty, or has a length below one.
    """
    if lengths_B.device.type != "cpu" or lengths_B.dim() != 1 or lengths_B.is_floating_point():
        raise ValueError(
            "lengths_B must be a one-dimensional integer tensor on the CPU (attention is planned there), "
            f"not {lengths_B.dtype} of shape {tuple(lengths_B.shape)} on {lengths_B.device}"
        )
    if lengths_B.numel() == 0 or int(lengths_B.min()) < 1:
        raise ValueError("a batch needs at least one jet and every jet at least one constituent")


def bucket_edges(sorted_tokens_B: NDArray[np.int64]) -> list[int]:
    """Cut jets, sorted by length, into at most MAX_BUCKETS runs of least total cost.

    Parameters
    ----------
    sorted_tokens_B : (B,) tokens per jet, ascending

    Returns
    -------
    Positions 0 = e_0 < e_1 < ... = B; bucket i holds jets e_i to e_(i+1) - 1. Exact, by dynamic programming
    over the distinct lengths.
    """
    length_U, counts_U = np.unique(sorted_tokens_B, return_counts=True)
    ends_U1 = np.concatenate([[0], np.cumsum(counts_U)])
    per_jet_U = length_U * (length_U + PER_TOKEN)
    # cost_UU[i, j]: one bucket of the distinct lengths i to j
    cost_UU = (ends_U1[None, 1:] - ends_U1[:-1, None]) * per_jet_U[None, :] + float(PER_BUCKET)
    cost_UU[np.tril_indices_from(cost_UU, -1)] = np.inf

    best_U = cost_UU[0]  # cheapest way to hold lengths 0..j in the buckets used so far
    cuts: list[NDArray[np.intp]] = []
    for _ in range(MAX_BUCKETS - 1):
        with_one_more_UU = np.concatenate([[0.0], best_U[:-1]])[:, None] + cost_UU
        cuts.append(with_one_more_UU.argmin(axis=0))
        best_U = with_one_more_UU.min(axis=0)

    edges = [len(length_U)]
    for cut_U in reversed(cuts):
        edges.append(int(cut_U[edges[-1] - 1]) if edges[-1] > 0 else 0)
    return sorted({int(ends_U1[edge]) for edge in [*edges, 0]})

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from jetscale.model import packing
from jetscale.model.packing import PackingPlan, bucket_edges
from tests.model.jets import random_lengths


def test_rows_of_class_tokens_and_constituents() -> None:
    plan = PackingPlan(torch.tensor([2, 1, 3]), torch.device("cpu"))
    assert plan.class_rows.tolist() == [0, 3, 5]
    assert plan.constituent_rows.tolist() == [1, 2, 4, 6, 7, 8]
    assert plan.offsets.tolist() == [0, 3, 5, 9]
    assert plan.class_offsets.tolist() == [0, 1, 2, 3]
    assert (plan.n_jets, plan.n_tokens, plan.longest) == (3, 9, 4)


def test_buckets_hold_every_token_once_and_undo_themselves() -> None:
    plan = PackingPlan(torch.tensor(random_lengths(64)), torch.device("cpu"))
    rows, jets = [], []
    for bucket in plan.buckets:
        valid_NL = (
            torch.ones_like(bucket.rows_NL, dtype=torch.bool) if bucket.valid_NL is None else bucket.valid_NL
        )
        rows.append(bucket.rows_NL[valid_NL])
        jets.append(bucket.jets_N)
    assert 1 < len(plan.buckets) <= packing.MAX_BUCKETS
    assert torch.equal(torch.cat(rows)[plan.token_order], torch.arange(plan.n_tokens))
    assert torch.equal(torch.cat(jets)[plan.jet_order], torch.arange(plan.n_jets))


def test_jets_of_one_length_are_one_bucket_without_mask() -> None:
    (bucket,) = PackingPlan(torch.tensor([5, 5, 5]), torch.device("cpu")).buckets
    assert bucket.valid_NL is None
    assert bucket.rows_NL.shape == (3, 6)


def cost(tokens_B: np.ndarray, edges: list[int]) -> int:
    longest_of = tokens_B[np.array(edges[1:]) - 1]
    padded = np.diff(edges) * longest_of * (longest_of + packing.PER_TOKEN)
    return int(padded.sum()) + len(longest_of) * packing.PER_BUCKET


@pytest.mark.parametrize("seed", range(5))
def test_bucket_edges_are_the_cheapest(seed: int) -> None:
    tokens_B = np.sort(np.random.default_rng(seed).integers(2, 200, size=11))
    inner = range(1, len(tokens_B))
    choices = [
        [0, *chosen, len(tokens_B)] for n in range(packing.MAX_BUCKETS) for chosen in combinations(inner, n)
    ]
    assert cost(tokens_B, bucket_edges(tokens_B)) == min(cost(tokens_B, edges) for edges in choices)

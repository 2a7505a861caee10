"""Exponents published in arXiv:2606.19781, tables 1 (approach 2) and 2 (approach 3), for comparison only."""

from __future__ import annotations

# subset: approach: (a, its error, b, its error); errors from 100 samples of 80% of the test jets
PUBLISHED: dict[str, dict[int, tuple[float, float, float, float]]] = {
    "scratch": {2: (0.517, 0.002, 0.483, 0.002), 3: (0.539, 0.001, 0.461, 0.001)},
    "qcd": {2: (0.526, 0.004, 0.474, 0.004), 3: (0.425, 0.002, 0.575, 0.002)},
    "qcd_res2p": {2: (0.265, 0.005, 0.735, 0.005), 3: (0.288, 0.009, 0.712, 0.009)},
    "qcd_res34p": {2: (0.283, 0.005, 0.717, 0.005), 3: (0.311, 0.005, 0.689, 0.005)},
    "bsm_all": {2: (0.224, 0.005, 0.776, 0.005), 3: (0.249, 0.005, 0.751, 0.005)},
}


def published(name: str) -> dict[str, tuple[float, float, float, float]]:
    """Published values of a subset by approach ("approach3"); empty for any other name."""
    return {f"approach{number}": values for number, values in PUBLISHED.get(name, {}).items()}


def published_difference(pair: str) -> float | None:
    """Difference of a (approach 3) of "X - Y" in the paper; None where it has no such pair."""
    one, _, other = pair.partition(" - ")
    if one not in PUBLISHED or other not in PUBLISHED:
        return None
    return PUBLISHED[one][3][0] - PUBLISHED[other][3][0]

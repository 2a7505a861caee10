"""Starting points of a joint fit by variable projection: for given exponents every loss is linear.

Each group solves the whole grid of (alpha, beta) for its E, A and B (`fitting.starts`). Nodes of shared
exponents are judged by the sum of the groups' squares, those of free exponents by each group alone; then the
groups' parameters are brought to the nearest ones that the model allows.

Shapes: R replicates, P points of a group, G exponents of the grid, F parameters of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from jetscale.analysis.fitting.starts import EXPONENTS_G, solve_nodes
from jetscale.analysis.joint.model import JointModel, Losses

Array = NDArray[np.float64]
Index = NDArray[np.intp]

CHUNK = 32  # replicates a time, as in `fitting.starts`
SMALL = 0.01  # of the mean loss: a coefficient that came out negative starts here
APART = 2  # nodes: starts of one replicate differ by as much in a shared exponent


def projected(
    model: JointModel, log_L: Losses, weight: Losses, shared: frozenset[str], count: int = 1
) -> Array:
    """The `count` best starts of every replicate, (count, R, F).

    Parameters
    ----------
    model : whose groups are E + A / N^alpha + B / D^beta.
    log_L, weight : by group, (R, P) or (1, P).
    shared : which of "alpha" and "beta" are shared.
    count : starts for each replicate.
    """
    R = max(len(value) for losses in (log_L, weight) for value in losses.values())
    maps = np.concatenate([group.matrix for group in model.groups])
    offsets = np.concatenate([group.offset for group in model.groups])
    inverse = np.linalg.pinv(maps)
    starts = np.empty((count, R, len(model.names)))
    for begin in range(0, R, CHUNK):
        rows = slice(begin, min(begin + CHUNK, R))
        grids = [
            _Grid.of(group.x_P, group.y_P, _part(log_L[group.name], rows), _part(weight[group.name], rows))
            for group in model.groups
        ]
        theta = _best(grids, rows.stop - begin, shared, count)
        starts[:, rows] = (theta - offsets) @ inverse.T
    return np.clip(starts, model.bounds.low, model.bounds.high)


@dataclass(frozen=True)
class _Grid:
    """One group at every node: coefficients and squares, (R, G, G)."""

    coefficients: tuple[Array, Array, Array]  # A, B, E
    square: Array
    mean_loss: Array

    @classmethod
    def of(cls, x_P: Array, y_P: Array, log_L_RP: Array, weight_RP: Array) -> _Grid:
        L_RP = np.exp(log_L_RP)
        A, B, E, square = solve_nodes(x_P, y_P, L_RP, weight_RP)
        # a node with a negative coefficient describes no loss: it may be taken only where there is no other
        worst = square.max(axis=(1, 2), keepdims=True)
        usable = (A > 0) & (B > 0) & (E > 0)
        return cls((A, B, E), np.where(usable, square, square + 10 * worst), L_RP.mean(axis=1))

    def theta(self, i: Index, j: Index) -> Array:
        """Parameters (R, 5) at nodes (R,)."""
        row = np.arange(len(self.square))
        least = SMALL * self.mean_loss
        A, B, E = (np.maximum(value[row, i, j], least) for value in self.coefficients)
        return np.stack([np.log(A), np.log(B), np.log(E), EXPONENTS_G[i], EXPONENTS_G[j]], axis=1)


def _best(grids: list[_Grid], R: int, shared: frozenset[str], count: int) -> Array:
    """Parameters of all groups side by side, (count, R, groups * 5)."""
    squares = [np.broadcast_to(grid.square, (R, *grid.square.shape[1:])).copy() for grid in grids]
    grids = [grid if len(grid.square) == R else _repeated(grid, R) for grid in grids]
    node = np.arange(len(EXPONENTS_G))
    found = []
    for _ in range(count):
        nodes = _chosen(squares, shared)
        found.append(np.concatenate([grid.theta(*ij) for grid, ij in zip(grids, nodes, strict=True)], axis=1))
        for square, (i, j) in zip(squares, nodes, strict=True):
            near = np.ones(square.shape, dtype=bool)
            if "alpha" in shared or not shared:
                near &= (np.abs(node - i[:, None]) < APART)[:, :, None]
            if "beta" in shared or not shared:
                near &= (np.abs(node - j[:, None]) < APART)[:, None, :]
            # not forbidden: a grid of few nodes may have to give one of them twice
            square[near] += 1e3 * (np.abs(square).max() + 1.0)
    return np.stack(found)


def _chosen(squares: list[Array], shared: frozenset[str]) -> list[tuple[Index, Index]]:
    """The best node (R,) of every group, the same in what is shared."""
    R, G, _ = squares[0].shape
    if not shared:
        return [_divided(square.reshape(R, -1).argmin(axis=1), G) for square in squares]
    if shared == {"alpha", "beta"}:
        added: Array = reduce(np.add, squares)
        return [_divided(added.reshape(R, -1).argmin(axis=1), G)] * len(squares)
    axis = 1 if "beta" in shared else 2  # the free exponent, minimised group by group
    common = np.sum([square.min(axis=axis) for square in squares], axis=0).argmin(axis=1)
    row, nodes = np.arange(R), []
    for square in squares:
        if axis == 2:
            nodes.append((common, square[row, common].argmin(axis=1)))
        else:
            nodes.append((square[row, :, common].argmin(axis=1), common))
    return nodes


def _divided(flat: Index, G: int) -> tuple[Index, Index]:
    i, j = np.divmod(flat, G)
    return i, j


def _repeated(grid: _Grid, R: int) -> _Grid:
    A, B, E = (np.broadcast_to(value, (R, *value.shape[1:])) for value in grid.coefficients)
    square = np.broadcast_to(grid.square, (R, *grid.square.shape[1:]))
    return _Grid((A, B, E), square, np.broadcast_to(grid.mean_loss, (R,)))


def _part(values: Array, rows: slice) -> Array:
    return values[rows] if len(values) > 1 else values

"""Starting points of a surface fit by variable projection, for every replicate at once.

For fixed (alpha, beta) the loss is linear in (E, A, B), so the best surface of every node of an (alpha, beta)
grid is a 3 x 3 linear problem whose matrices are linear in the weights: all replicates times all nodes are a
few matrix products. Nothing is taken from a published answer, and every replicate searches the whole grid.

Shapes: R replicates, P points, G and H exponents alpha and beta of the grid, Q = 5 parameters (ln A, ln B,
ln E, alpha, beta).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXPONENTS_G = np.arange(0.05, 1.2001, 0.05)
EQUAL = 1e-12  # mean relative squares that differ by less are equal: rounding
_CHUNK = 32  # replicates a time: 32 x 576 nodes of each array stay in cache


def projected_starts(
    x_P: Array,
    y_P: Array,
    log_L_RP: Array,
    weight_RP: Array,
    count: int = 1,
    *,
    tied: bool = False,
    grids: tuple[Array, Array] = (EXPONENTS_G, EXPONENTS_G),
) -> Array:
    """Return the `count` best grid nodes of every replicate, (R, count, 5).

    Parameters
    ----------
    x_P, y_P : centred ln N and ln D.
    log_L_RP, weight_RP : (R, P) or (1, P); R is the larger of the two.
    count : starts a replicate; they differ by at least two grid steps in an exponent.
    tied : only nodes with alpha = beta.
    grids : values of alpha and of beta; one value where an exponent is pinned.

    The sum of squares is relative (weights divided by L^2), close to the log residuals of the fit proper.
    """
    replicates = max(len(log_L_RP), len(weight_RP))
    starts = np.empty((replicates, count, 5))
    for begin in range(0, replicates, _CHUNK):
        rows = slice(begin, begin + _CHUNK)
        log_L = log_L_RP[rows] if len(log_L_RP) > 1 else log_L_RP
        weight = weight_RP[rows] if len(weight_RP) > 1 else weight_RP
        starts[rows] = _best_nodes(x_P, y_P, np.exp(log_L), weight, count, tied, grids)
    return starts


def _best_nodes(
    x_P: Array,
    y_P: Array,
    L_RP: Array,
    weight_RP: Array,
    count: int,
    tied: bool,
    grids: tuple[Array, Array],
) -> Array:
    A_RGH, B_RGH, E_RGH, square_RGH = solve_nodes(x_P, y_P, L_RP, weight_RP, *grids)
    alpha_G, beta_H = grids
    usable = (A_RGH > 0) & (B_RGH > 0) & (E_RGH > 0)
    if tied:
        usable &= alpha_G[:, None] == beta_H[None, :]
    square_RGH = np.where(usable, square_RGH, np.inf)
    R = len(square_RGH)
    equal_R = np.broadcast_to(EQUAL * weight_RP.sum(axis=1), R)  # the squares are relative
    row, node_G, node_H = np.arange(R), np.arange(len(alpha_G)), np.arange(len(beta_H))
    starts = np.empty((R, count, 5))
    fallback = _fallback(L_RP)
    for k in range(count):
        square = square_RGH.reshape(R, -1)
        # on a ray of N and D nodes (alpha, beta) and (beta, alpha) are equal up to rounding: take the first
        best = (square <= square.min(axis=1, keepdims=True) + equal_R[:, None]).argmax(axis=1)
        i, j = np.divmod(best, len(beta_H))
        found = np.isfinite(square_RGH[row, i, j])
        A, B, E = (np.where(found, grid[row, i, j], 1.0) for grid in (A_RGH, B_RGH, E_RGH))
        theta = np.stack([np.log(A), np.log(B), np.log(E), alpha_G[i], beta_H[j]], axis=1)
        starts[:, k] = np.where(found[:, None], theta, fallback[:, k % fallback.shape[1]])
        near = (np.abs(node_G - i[:, None]) < 2)[:, :, None] & (np.abs(node_H - j[:, None]) < 2)[:, None, :]
        square_RGH = np.where(near, np.inf, square_RGH)
    return starts


def _fallback(L_RP: Array) -> Array:
    """Plain guesses, (R, 4, 5), where no node has three positive coefficients."""
    low = np.log(L_RP.min(axis=1))
    part = np.log(0.3) + np.log(np.median(L_RP, axis=1))
    guesses = [(0.1, 0.1), (0.3, 0.3), (0.1, 0.4), (0.4, 0.1)]
    return np.stack(
        [
            np.stack([part, part, low - 1.0, 0 * low + alpha, 0 * low + beta], axis=1)
            for alpha, beta in guesses
        ],
        axis=1,
    )


def solve_nodes(
    x_P: Array,
    y_P: Array,
    L_RP: Array,
    weight_RP: Array,
    alpha_G: Array = EXPONENTS_G,
    beta_H: Array = EXPONENTS_G,
) -> tuple[Array, Array, Array, Array]:
    """Least squares of L on (1, N^-alpha, D^-beta) at every node: A, B, E, squares; (R, G, H).

    Parameters
    ----------
    x_P, y_P : (P,) centred ln N and ln D.
    L_RP, weight_RP : (R, P) or (1, P).
    alpha_G, beta_H : exponents of the nodes.
    """
    f_PG = np.exp(-np.outer(x_P, alpha_G))
    g_PH = np.exp(-np.outer(y_P, beta_H))
    w_RP = np.broadcast_to(weight_RP, np.broadcast_shapes(weight_RP.shape, L_RP.shape)) / L_RP**2
    wL_RP = w_RP * L_RP
    R, G, H = len(w_RP), len(alpha_G), len(beta_H)
    total = w_RP.sum(axis=1)[:, None, None]
    f, ff = (w_RP @ f_PG)[:, :, None], (w_RP @ f_PG**2)[:, :, None]
    g, gg = (w_RP @ g_PH)[:, None, :], (w_RP @ g_PH**2)[:, None, :]
    fg = (w_RP @ (f_PG[:, :, None] * g_PH[:, None, :]).reshape(-1, G * H)).reshape(R, G, H)
    t = wL_RP.sum(axis=1)[:, None, None]
    tf, tg = (wL_RP @ f_PG)[:, :, None], (wL_RP @ g_PH)[:, None, :]
    tt = (wL_RP * L_RP).sum(axis=1)[:, None, None]
    # moments about the weighted means: the constant E is eliminated
    ff, gg, fg = ff - f * f / total, gg - g * g / total, fg - f * g / total
    tf, tg, tt = tf - t * f / total, tg - t * g / total, tt - t * t / total
    determinant = ff * gg - fg * fg
    singular = determinant <= 1e-12 * ff * gg
    determinant = np.where(singular, 1.0, determinant)
    A = np.where(singular, -1.0, (gg * tf - fg * tg) / determinant)
    B = (ff * tg - fg * tf) / determinant
    E = (t - A * f - B * g) / total
    return A, B, E, tt - A * tf - B * tg

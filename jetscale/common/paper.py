"""Numbers of the paper (arXiv:2606.19781) that several rooms count with."""

from __future__ import annotations

WIDTHS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Widths of the paper's networks."""

MEAN_CONSTITUENTS = 40
"""Constituents per jet in the paper's compute (its n_p). The real mean differs by bucket, so runs count
their constituents too."""

FLOPS_PER_PARAM_JET = 6.0 * MEAN_CONSTITUENTS
"""Training FLOPs per parameter and jet: the paper's C = 6 N 40 D, N parameters and D jets."""

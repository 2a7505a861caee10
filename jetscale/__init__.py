"""jetscale: scaling laws for scientific foundation models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from jetscale.tagger.load import Tagger

__version__ = "0.1.0"


def load(run: str | Path, weights: str | None = None) -> Tagger:
    """Load the tagger that a finished run trained, on the CPU (docs/tagger.md).

    Parameters
    ----------
    run : the run directory, ``multirun/<study>/<subset>/dim=<d>/seed=<s>[/<overrides>]``; or that of a
        pretraining, ``multirun/backbones/<name>``, which gives a tagger for the classes of the pretraining
    weights : ``raw``, ``ema`` (the average over the last steps), or None for ``ema`` where the run kept one

    Raises
    ------
    UsageError
        There is no run, it is not finished, one of its files does not fit its checksum, or it has no such
        weights.
    """
    from jetscale.common.imports import quick_imports

    with quick_imports():
        from jetscale.tagger.load import load as load_tagger  # torch, which importing jetscale does not need

    return load_tagger(run, weights)

"""Rows of a subset that are fitted, and the definitions of N and C they are fitted with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jetscale.analysis.settings import FitSettings
from jetscale.analysis.tables.loss_table import LossTable
from jetscale.common.usage import UsageError

if TYPE_CHECKING:
    import pandas as pd


def select(frame: pd.DataFrame, settings: FitSettings, losses: LossTable) -> pd.DataFrame:
    """Test losses of the chosen weights, with N and C as asked, the largest losses left out if asked.

    Parameters
    ----------
    frame : rows of one subset.
    settings : of the fit.
    losses : the table they come from.

    Raises
    ------
    UsageError
        Weights, kinds of parameters or counts that the table does not have; nothing left.
    """
    frame = of_weights(frame, settings.weights, losses).copy()
    frame["n_params"] = count_parameters(frame, settings.n_params, losses)
    frame["flops"] = compute(frame, settings.flops, losses)
    if settings.drop_largest:
        frame = frame.drop(frame.nlargest(settings.drop_largest, "loss").index)
    if not len(frame):
        raise UsageError(f"{losses.source}: no test loss is left to fit")
    return frame.reset_index(drop=True)


def of_weights(frame: pd.DataFrame, asked: str, losses: LossTable) -> pd.DataFrame:
    """Test losses of the weights asked for: raw or ema; empty: ema where the runs have it.

    Parameters
    ----------
    frame : rows of one subset.
    asked : raw, ema or empty.
    losses : the table they come from.

    Raises
    ------
    UsageError
        They were not evaluated.
    """
    frame = frame[frame["split"] == "test"]
    kinds = sorted(frame["weights"].unique())
    weights = asked or ("ema" if "ema" in kinds else (kinds[0] if kinds else "raw"))
    if kinds and weights not in kinds:
        raise UsageError(
            f"{losses.source}: weights={weights!r} were not evaluated; there are {', '.join(kinds)}"
        )
    return frame[frame["weights"] == weights]


def count_parameters(frame: pd.DataFrame, definition: str, losses: LossTable) -> pd.Series[float]:
    """N of each row: ``total``, or the sum of kinds such as ``blocks+head``."""
    if definition == "total":
        return frame["n_params"]
    columns = [f"n_params_{kind.strip()}" for kind in definition.split("+")]
    missing = [column for column in columns if column not in frame or frame[column].isna().any()]
    if missing:
        known = sorted(
            str(c).removeprefix("n_params_") for c in frame.columns if str(c).startswith("n_params_")
        )
        raise UsageError(
            f"{losses.source}: n_params={definition!r} needs counts the runs lack ({', '.join(missing)}); "
            f"known kinds: {', '.join(known) or 'none'}"
        )
    total: pd.Series[float] = frame[columns].sum(axis=1)
    return total


def compute(frame: pd.DataFrame, definition: str, losses: LossTable) -> pd.Series[float]:
    """C of each row under the chosen definitions of N and of FLOPs."""
    total = losses.frame.loc[frame.index, "n_params"]
    if definition == "paper":
        scaled: pd.Series[float] = frame["flops"] * (frame["n_params"] / total)
        return scaled
    if definition == "constituents":
        if not np.isfinite(frame["constituents"]).all():
            raise UsageError(
                f"{losses.source}: flops=constituents needs counted constituents, which the table lacks"
            )
        return 6.0 * frame["n_params"] * frame["constituents"]
    raise UsageError(f"flops={definition!r}: choose paper or constituents")

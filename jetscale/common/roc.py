"""Background rejection and area under the ROC curve of a classifier's output, with weights of the jets.

The sums are written here and not taken from torchmetrics because a bootstrap replicate gives each jet a
weight, the number of times it was drawn, and torchmetrics knows no weights; with all weights 1 the numbers
are those of torchmetrics and scikit-learn (tests/tagger/test_metrics.py).

Shapes: J jets, K classes, S signal and B background jets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BACKGROUND = "QCD"
"""Classes whose names begin with this are the background of every rejection."""

SIGNAL_EFFICIENCY = 0.5
"""Share of signal jets that are kept where a rejection is taken, for classes that are not named below."""
EFFICIENCIES = {"Hqql": 0.99, "Tbl": 0.995}
"""Those of the JetClass tables (Qu, Li, Qian, "Particle Transformer for Jet Tagging", arXiv:2202.03772,
table 1): leptonic decays are rejected well even when nearly all are kept."""


def efficiency_of(name: str) -> float:
    """Share of the jets of class `name` that is kept where its rejection is taken."""
    return EFFICIENCIES.get(name, SIGNAL_EFFICIENCY)


@dataclass(frozen=True)
class Curve:
    """Signal and background of one classifier output, by falling output.

    Attributes
    ----------
    signal_S, background_B : (S,), (B,) row numbers of the jets, the highest output first
    above_S : (S,) background jets whose output is at least that of the signal jet
    tied_S : (S,) background jets with the same output
    """

    signal_S: Integers
    background_B: Integers
    above_S: Integers
    tied_S: Integers

    def efficiencies(self, weight_J: Floats) -> tuple[Floats, Floats]:
        """Shares of signal and of background that are kept by a cut at each signal jet, (S,) each.

        Parameters
        ----------
        weight_J : (J,) how often each jet counts
        """
        kept_S = np.cumsum(weight_J[self.signal_S])
        return kept_S / kept_S[-1], self._background(weight_J)[self.above_S]

    def kept_background(self, weight_J: Floats, efficiency: float) -> float:
        """Share of the background that is kept where `efficiency` of the signal is; nan without one of them.

        Parameters
        ----------
        weight_J : (J,) how often each jet counts
        efficiency : share of the signal, above 0
        """
        kept_S = np.cumsum(weight_J[self.signal_S])
        sums = np.cumsum(weight_J[self.background_B])
        if not kept_S[-1] or not sums[-1]:
            return float("nan")  # a replicate without one of the two
        # the first jet at which at least that share is kept; a millionth of a jet is rounding
        at = min(int(np.searchsorted(kept_S, efficiency * kept_S[-1] - 1e-6)), len(kept_S) - 1)
        above = self.above_S[at]
        return float(sums[above - 1] / sums[-1]) if above else 0.0

    def area(self, weight_J: Floats) -> float:
        """Area under the ROC curve: how often signal has the higher output; ties count half.

        Parameters
        ----------
        weight_J : (J,) how often each jet counts
        """
        signal_S = weight_J[self.signal_S]
        share = self._background(weight_J)
        not_below_S = (share[self.above_S] + share[self.above_S - self.tied_S]) / 2
        return float(1 - (signal_S * not_below_S).sum() / signal_S.sum())

    def _background(self, weight_J: Floats) -> Floats:
        """(B + 1,) share of the background among the first 0, 1, ... B of its jets."""
        sums = np.concatenate([[0.0], np.cumsum(weight_J[self.background_B])])
        share: Floats = sums / sums[-1]
        return share


def curve(output_J: npt.NDArray[np.floating[Any]], is_signal_J: Any, is_background_J: Any) -> Curve | None:
    """Sort signal and background by a classifier's output.

    Parameters
    ----------
    output_J : (J,) high for signal
    is_signal_J, is_background_J : (J,) bool, disjoint; other jets are left out

    Returns
    -------
    None where there is no signal or no background.
    """
    signal_S, background_B = np.flatnonzero(is_signal_J), np.flatnonzero(is_background_J)
    if not len(signal_S) or not len(background_B):
        return None
    signal_S = signal_S[np.argsort(-output_J[signal_S], kind="stable")]
    background_B = background_B[np.argsort(-output_J[background_B], kind="stable")]
    theirs, ours = -output_J[background_B], -output_J[signal_S]
    above_S = np.searchsorted(theirs, ours, side="right")
    return Curve(signal_S, background_B, above_S, above_S - np.searchsorted(theirs, ours, side="left"))


def signal_share(scores_JK: npt.NDArray[np.float32], signal: int, background_K: Any) -> Floats:
    """p(signal) / (p(signal) + p(background)), the discriminant of the JetClass tables, (J,).

    Parameters
    ----------
    scores_JK : (J, K) probabilities
    signal : number of the signal class
    background_K : (K,) bool, classes of the background

    Source: Qu, Li, Qian, arXiv:2202.03772, eq. 6.
    """
    tiny = np.finfo(np.float32).tiny  # both may have been rounded to 0
    signal_J = scores_JK[:, signal].astype(np.float64)
    share_J: Floats = signal_J / np.maximum(signal_J + scores_JK[:, background_K].sum(axis=1), tiny)
    return share_J

"""How well jets are classified, each number with a bootstrap error over jets.

The sums are written here and not taken from torchmetrics because a bootstrap replicate gives each jet a
weight, the number of times it was drawn, and torchmetrics knows no weights; with all weights 1 the numbers
are those of torchmetrics and scikit-learn (tests/tagger/test_metrics.py).

Shapes: J jets, K classes, R bootstrap replicates, S signal and B background jets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
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

MOST_CLASSES = 30
"""The mean over all pairs of classes is left out for more: 188 classes have 17,578 pairs."""


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


@dataclass(frozen=True)
class Bootstrap:
    """Replicates of a set of jets: each gives every jet the number of times that it was drawn.

    Attributes
    ----------
    n_jets : J
    replicates : R
    seed : of the draws
    """

    n_jets: int
    replicates: int
    seed: int

    def weights(self, number: int) -> Floats:
        """Weights of replicate `number`, (J,) float64: J draws with replacement."""
        rng = np.random.default_rng([self.seed, number])
        drawn = rng.integers(0, self.n_jets, self.n_jets)
        return np.bincount(drawn, minlength=self.n_jets).astype(np.float64)


class Measures:
    """All metrics of a set of jets, to be taken with any weights of the jets.

    Parameters
    ----------
    scores_JK : (J, K) float32, probabilities
    labels_J : (J,) int64, class numbers
    class_names : names of the K classes
    """

    def __init__(
        self, scores_JK: npt.NDArray[np.float32], labels_J: Integers, class_names: Sequence[str]
    ) -> None:
        self.n_jets = len(labels_J)
        numbers = range(len(class_names))
        self._right_J = scores_JK.argmax(axis=1) == labels_J
        own_J = scores_JK[np.arange(len(labels_J)), labels_J].astype(np.float64)
        self._loss_J = -np.log(np.maximum(own_J, np.finfo(np.float32).tiny))
        is_background_K = np.array([name.startswith(BACKGROUND) for name in class_names])
        of_background_J = is_background_K[labels_J]
        self.against_rest = {
            name: curve(scores_JK[:, k], labels_J == k, labels_J != k) for k, name in enumerate(class_names)
        }
        self.pairs = [
            curve(scores_JK[:, one], labels_J == one, labels_J == other)
            for pair in combinations(numbers, 2) for one, other in (pair, pair[::-1])
            if len(class_names) <= MOST_CLASSES
        ]  # fmt: skip
        self.against_background = {
            name: curve(signal_share(scores_JK, k, is_background_K), labels_J == k, of_background_J)
            for k, name in enumerate(class_names)
            if not is_background_K[k] and is_background_K.any()
        }

    def taken(self, weight_J: Floats) -> dict[str, float]:
        """Every metric with these weights, (J,), of the jets; nan where a class has no jets.

        Keys: ``loss`` (mean cross-entropy, nats), ``accuracy``, ``auc_NAME`` (against the rest), ``auc_ovr``
        (their mean), ``auc_ovo`` (mean over ordered pairs of classes; Hand and Till, Machine Learning 45,
        2001), and ``background_NAME``, the share of the background that is kept. Means are over
        what has jets.
        """
        with np.errstate(invalid="ignore", divide="ignore"):  # a replicate may lack a class of few jets
            areas = {name: one.area(weight_J) for name, one in self.against_rest.items() if one}
            pairs = [one.area(weight_J) for one in self.pairs if one]
            kept = {
                f"background_{name}": one.kept_background(weight_J, efficiency_of(name))
                for name, one in self.against_background.items()
                if one
            }
        return {
            "loss": float((weight_J * self._loss_J).sum() / weight_J.sum()),
            "accuracy": float((weight_J * self._right_J).sum() / weight_J.sum()),
            **({"auc_ovr": _mean(list(areas.values()))} if areas else {}),
            **({"auc_ovo": _mean(pairs)} if pairs else {}),
            **{f"auc_{name}": area for name, area in areas.items()},
            **kept,
        }


def efficiency_of(name: str) -> float:
    """Share of the jets of class `name` that is kept where its rejection is taken."""
    return EFFICIENCIES.get(name, SIGNAL_EFFICIENCY)


def measure(measures: Measures, bootstrap: Bootstrap) -> dict[str, dict[str, Any]]:
    """Metrics with errors, as in ``evaluate.json``.

    Parameters
    ----------
    measures : of the jets
    bootstrap : the replicates

    Returns
    -------
    ``value``, ``sd`` and ``ci95`` (quantiles) of each key of `Measures.taken`, but of ``rejection_NAME``, see
    `_rejection`, instead of ``background_NAME``.
    """
    ones_J = np.ones(bootstrap.n_jets)
    values = measures.taken(ones_J)
    drawn = [measures.taken(bootstrap.weights(number)) for number in range(bootstrap.replicates)]
    found: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        replicates_R = np.array([one[key] for one in drawn])
        replicates_R = replicates_R[np.isfinite(replicates_R)]
        if not key.startswith("background_"):
            sd, low, high = _spread(replicates_R)
            found[key] = {"value": value, "sd": sd, "ci95": [low, high]}
            continue
        name = key.removeprefix("background_")
        one = measures.against_background[name]
        assert one is not None
        found[f"rejection_{name}"] = _rejection(one, efficiency_of(name), value, replicates_R)
    return found


def _rejection(one: Curve, efficiency: float, share: float, replicates_R: Floats) -> dict[str, Any]:
    """1 / (share of the background that is kept), and what it rests on.

    ``sd`` is that of the share, carried over: sd(1 / share) = sd(share) / share^2. Where no background jet is
    kept, ``value`` and ``sd`` are None and ``above`` is the number of background jets: the rejection is more
    than about that.
    """
    kept = round(share * len(one.background_B))
    sd, low, high = _spread(replicates_R)
    rests_on = {
        "signal_efficiency": efficiency,
        "signal_jets": len(one.signal_S),
        "background_jets": len(one.background_B),
        "background_jets_kept": kept,
    }
    if not kept:
        return {"value": None, "sd": None, "ci95": [None, None], "above": len(one.background_B), **rests_on}
    return {
        "value": 1 / share,
        "sd": None if sd is None else sd / share**2,
        "ci95": [1 / high if high else None, 1 / low if low else None],
        **rests_on,
    }


def _spread(replicates_R: Floats) -> tuple[float | None, float | None, float | None]:
    """Standard deviation and 95% interval of replicates; None where fewer than two could be taken."""
    if len(replicates_R) < 2:
        return None, None, None
    low, high = np.quantile(replicates_R, [0.025, 0.975])
    return float(replicates_R.std(ddof=1)), float(low), float(high)


def _mean(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")

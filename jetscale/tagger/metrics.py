"""How well jets are classified, each number with a bootstrap error over jets.

Shapes: J jets, K classes, R bootstrap replicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from jetscale.common.roc import BACKGROUND, Curve, Floats, Integers, curve, efficiency_of, signal_share

MOST_CLASSES = 30
"""The mean over all pairs of classes is left out for more: 188 classes have 17,578 pairs."""


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

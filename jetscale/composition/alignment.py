"""Alignment: how near a composition is to the downstream jets.

Shapes: B jets, M downstream jets, O observables.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from jetscale.common.usage import UsageError
from jetscale.composition.half_samples import Measured
from jetscale.composition.measures import Comparison, Measure
from jetscale.composition.settings import LEAST_JETS

Array = npt.NDArray[np.float64]

NEIGHBOURS = 3
"""k of precision and recall: the value of arXiv:1904.06991, section 2."""
FOLDS = 5


def covered(x_BO: Array, of_MO: Array) -> float:
    """Share of the jets `of_MO` that lie within the support of the jets `x_BO`.

    The support is the union of balls about each jet of `x_BO` that reach to its k-th nearest neighbour among
    them (Kynkäänniemi et al., arXiv:1904.06991, eq. 1). With x downstream and `of` the composition this is
    precision: composition jets that look like downstream jets; the other way round recall: downstream jets
    similar to some jet of the composition. Both fall as samples grow: compare equal numbers.

    Parameters
    ----------
    x_BO : (B, O) jets that define the support
    of_MO : (M, O) jets that are asked about
    """
    from sklearn.neighbors import NearestNeighbors

    radius_B = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(x_BO).kneighbors(x_BO)[0][:, -1]
    inside = np.zeros(len(of_MO), bool)
    for start in range(0, len(of_MO), _CHUNK):
        chunk = of_MO[start : start + _CHUNK]
        square = (chunk**2).sum(axis=1)[:, None] + (x_BO**2).sum(axis=1) - 2 * chunk @ x_BO.T
        inside[start : start + _CHUNK] = (square <= radius_B**2).any(axis=1)
    return float(inside.mean())


_CHUNK = 512


def separation(x_BO: Array, of_MO: Array, seed: int) -> tuple[Array, Array]:
    """Scores of a classifier between the two samples, for jets that it was not trained on.

    Boosted trees, 5-fold cross-validation (classifier two-sample test: Lopez-Paz and Oquab,
    arXiv:1610.06545).

    Parameters
    ----------
    x_BO, of_MO : (B, O) and (M, O) coordinates of the two samples
    seed : of the trees and of the folds

    Returns
    -------
    (B,) and (M,) float64: the higher, the more like the first sample.

    Raises
    ------
    UsageError
        A sample has fewer than `LEAST_JETS` jets.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    if (fewest := min(len(x_BO), len(of_MO))) < LEAST_JETS:
        raise UsageError(
            f"{fewest} jets are too few for the classifier behind the AUC, which needs {LEAST_JETS} of each "
            "sample; take more jets"
        )
    both = np.concatenate([x_BO, of_MO])
    target = np.repeat([1, 0], [len(x_BO), len(of_MO)])
    model = HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=15, early_stopping=False, random_state=seed
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    score = cross_val_predict(model, both, target, cv=folds, method="decision_function")
    return score[: len(x_BO)], score[len(x_BO) :]


def auc(score_B: Array, score_M: Array) -> float:
    """Area under the ROC curve: 0.5 where the samples cannot be told apart, 1 where always.

    Parameters
    ----------
    score_B, score_M : (B,) and (M,), higher for the first sample
    """
    from sklearn.metrics import roc_auc_score

    target = np.repeat([1, 0], [len(score_B), len(score_M)])
    return float(roc_auc_score(target, np.concatenate([score_B, score_M])))


def wasserstein(values_B: Array, of_M: Array) -> float:
    """Earth mover's distance of one observable, in standard deviations of the second sample.

    The mean |difference| of sorted values (Villani, Optimal Transport, 2009, ch. 6).

    Parameters
    ----------
    values_B, of_M : (B,) and (M,) values of the two samples
    """
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(values_B, of_M) / of_M.std())


UNIT = (0.0, 1.0)


def _precision(both: Comparison) -> Measured:
    return both.measured(lambda rows: covered(both.theirs[rows[1]], both.ours[rows[0]]), UNIT)


def _recall(both: Comparison) -> Measured:
    return both.measured(lambda rows: covered(both.ours[rows[0]], both.theirs[rows[1]]), UNIT)


def _auc(both: Comparison) -> Measured:
    # the classifiers stay as they are: this is the error of testing them, not of their training
    score_B, score_M = separation(both.ours, both.theirs, both.seed)
    return both.measured(lambda rows: auc(score_B[rows[0]], score_M[rows[1]]), UNIT)


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


PRECISION = Measure("precision", _precision)
RECALL = Measure("recall", _recall)
AUC = Measure("AUC", _auc)
DISTANCE = Measure("distance", lambda both: both.per_observable(wasserstein, _mean))
"""Mean of `wasserstein` over the observables."""

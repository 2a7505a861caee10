"""Metrics against torchmetrics and scikit-learn, and their errors against repeated samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import binary_roc, multiclass_accuracy, multiclass_auroc

from jetscale.tagger.metrics import Bootstrap, Measures, measure

NAMES = ("QCD", "Hbb", "Hqql")


def jets(n_jets: int, seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([17, seed])
    labels_J = rng.integers(0, 3, n_jets)
    logits_JK = rng.normal(size=(n_jets, 3))
    logits_JK[np.arange(n_jets), labels_J] += 1.5
    scores_JK = np.exp(logits_JK) / np.exp(logits_JK).sum(axis=1, keepdims=True)
    if ties:  # sixteenths: equal to the last bit, and their sum is 1
        scores_JK = 1 + np.floor(13 * scores_JK)
        scores_JK[:, 2] = 16 - scores_JK[:, 0] - scores_JK[:, 1]
        scores_JK /= 16
    return scores_JK.astype(np.float32), labels_J


def of_jets(n_jets: int, seed: int, replicates: int = 2, ties: bool = False) -> dict:
    return measure(Measures(*jets(n_jets, seed, ties), NAMES), Bootstrap(n_jets, replicates, seed))


@pytest.mark.parametrize("ties", [False, True])
def test_values_are_those_of_the_libraries(ties: bool) -> None:
    scores_JK, labels_J = jets(3_000, 0, ties)
    found = {key: one["value"] for key, one in of_jets(3_000, 0, ties=ties).items()}
    p, y = torch.from_numpy(scores_JK), torch.from_numpy(labels_J)
    own_J = scores_JK.astype(float)[np.arange(3_000), labels_J]
    assert found["loss"] == pytest.approx(-np.log(own_J).mean(), rel=1e-5)
    if not ties:  # the libraries differ on which of two equal classes is the most probable
        assert found["accuracy"] == pytest.approx(float(multiclass_accuracy(p, y, 3, average="micro")))
    assert found["auc_ovr"] == pytest.approx(float(multiclass_auroc(p, y, 3)), rel=1e-6)
    normed = scores_JK.astype(float) / scores_JK.astype(float).sum(axis=1, keepdims=True)
    assert found["auc_ovo"] == pytest.approx(roc_auc_score(labels_J, normed, multi_class="ovo"), rel=1e-6)
    for number, name, efficiency in ((1, "Hbb", 0.5), (2, "Hqql", 0.99)):
        chosen = (y == 0) | (y == number)
        share = p[chosen, number].double() / (p[chosen, number] + p[chosen, 0]).double()
        false, true, _ = binary_roc(share, (y[chosen] == number).long())
        expected = 1 / float(false[true >= efficiency].min())
        assert found[f"rejection_{name}"] == pytest.approx(expected, rel=1e-6)
        assert found[f"rejection_{name}"] > 1.05


def test_weights_are_repeated_jets() -> None:
    """A replicate's metrics are those of the jets that it drew, written out."""
    scores_JK, labels_J = jets(500, 1, ties=True)
    weight_J = Bootstrap(500, 1, 5).weights(0)
    assert weight_J.sum() == 500
    rows = np.repeat(np.arange(500), weight_J.astype(int))
    drawn = Measures(scores_JK[rows], labels_J[rows], NAMES).taken(np.ones(500))
    assert Measures(scores_JK, labels_J, NAMES).taken(weight_J) == pytest.approx(drawn, rel=1e-12)


def test_errors_are_the_scatter_of_other_samples() -> None:
    """Standard deviations from 100 replicates of one sample against those of 200 samples."""
    others = [of_jets(2_000, seed) for seed in range(100, 300)]
    ours = of_jets(2_000, 99, replicates=100)
    for key in ("accuracy", "auc_ovr", "auc_ovo", "loss", "rejection_Hbb", "rejection_Hqql"):
        scatter = np.std([one[key]["value"] for one in others], ddof=1)
        assert ours[key]["sd"] == pytest.approx(scatter, rel=0.5), key
        low, high = ours[key]["ci95"]
        assert low < ours[key]["value"] < high


def test_a_rejection_that_rests_on_no_jet_is_no_number() -> None:
    labels_J = np.repeat([0, 1, 2], 100)
    found = measure(Measures(np.eye(3, dtype=np.float32)[labels_J], labels_J, NAMES), Bootstrap(300, 5, 0))
    assert found["rejection_Hbb"]["value"] is None
    assert found["rejection_Hbb"]["background_jets_kept"] == 0
    assert found["rejection_Hbb"]["above"] == 100
    assert found["accuracy"] == {"value": 1, "sd": 0, "ci95": [1, 1]}


def test_a_class_without_jets_is_left_out() -> None:
    scores_JK, labels_J = jets(1_000, 3)
    kept_J = labels_J < 2
    found = measure(Measures(scores_JK[kept_J], labels_J[kept_J], NAMES), Bootstrap(int(kept_J.sum()), 3, 0))
    assert "auc_Hqql" not in found
    assert "rejection_Hqql" not in found
    assert found["auc_ovr"]["value"] == np.mean([found["auc_QCD"]["value"], found["auc_Hbb"]["value"]])
    # one jet of a class: half the replicates lack it
    labels_J = np.array([0] * 50 + [1])
    found = measure(Measures(scores_JK[:51], labels_J, NAMES), Bootstrap(51, 40, 0))
    assert np.isfinite(found["rejection_Hbb"]["value"] or 1)
    assert np.isfinite(found["auc_Hbb"]["sd"])
    # jets of one class alone have neither an area nor a rejection
    found = measure(Measures(scores_JK[:50], labels_J[:50], NAMES), Bootstrap(50, 3, 0))
    assert set(found) == {"loss", "accuracy"}

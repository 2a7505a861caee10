"""Accuracy, AUC and rejections against scikit-learn, which shares no code with torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, roc_auc_score, roc_curve

from jetscale.training.jet_metrics import JetMetrics

NAMES = ("QCD_b", "QCD_light", "X_bb", "X_cc")
JETS = 3_000


def jets(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of a classifier that is often right, and labels."""
    generator = torch.Generator().manual_seed(seed)
    labels_J = torch.randint(0, len(NAMES), (JETS,), generator=generator)
    logits_JK = torch.randn(JETS, len(NAMES), generator=generator)
    logits_JK[torch.arange(JETS), labels_J] += 1.5
    return logits_JK.softmax(dim=1), labels_J


def computed(probabilities_JK: torch.Tensor, labels_J: torch.Tensor, batch: int) -> dict[str, float]:
    metrics = JetMetrics(NAMES)
    for start in range(0, len(labels_J), batch):
        metrics.update(probabilities_JK[start : start + batch], labels_J[start : start + batch])
    return {name: float(value) for name, value in metrics.compute().items()}


def test_they_are_those_of_scikit_learn() -> None:
    probabilities_JK, labels_J = jets()
    found = computed(probabilities_JK, labels_J, batch=256)
    p, y = probabilities_JK.double().numpy(), labels_J.numpy()
    assert set(found) == {"accuracy", "auc", "rejection_X_bb", "rejection_X_cc"}
    assert found["accuracy"] == pytest.approx(accuracy_score(y, p.argmax(axis=1)), rel=1e-6)
    areas = [roc_auc_score(y == number, p[:, number]) for number in range(len(NAMES))]
    assert found["auc"] == pytest.approx(np.mean(areas), rel=1e-6)
    for number, name in ((2, "X_bb"), (3, "X_cc")):
        chosen = (y == number) | (y < 2)
        score = p[:, number] / (p[:, number] + p[:, 0] + p[:, 1])
        false, true, _ = roc_curve(y[chosen] == number, score[chosen], drop_intermediate=False)
        assert found[f"rejection_{name}"] == pytest.approx(1 / false[true >= 0.5].min(), rel=1e-6)
        assert found[f"rejection_{name}"] > 2


def test_they_do_not_depend_on_the_batches() -> None:
    probabilities_JK, labels_J = jets()
    assert computed(probabilities_JK, labels_J, 256) == computed(probabilities_JK, labels_J, JETS)
    order = torch.randperm(JETS, generator=torch.Generator().manual_seed(1))
    assert computed(probabilities_JK[order], labels_J[order], 100) == pytest.approx(
        computed(probabilities_JK, labels_J, 256), rel=1e-6
    )


def test_a_class_without_jets_and_a_background_that_is_all_rejected() -> None:
    probabilities_JK, labels_J = jets()
    kept_J = labels_J < 3
    found = computed(probabilities_JK[kept_J], labels_J[kept_J], 256)
    assert math.isnan(found["rejection_X_cc"])
    p, y = probabilities_JK[kept_J].double().numpy(), labels_J[kept_J].numpy()
    areas = [roc_auc_score(y == number, p[:, number]) for number in range(3)]
    assert found["auc"] == pytest.approx(np.mean(areas), rel=1e-6)
    perfect = computed(torch.eye(4)[labels_J], labels_J, 256)
    assert perfect["accuracy"] == perfect["auc"] == 1
    assert perfect["rejection_X_bb"] == math.inf


def test_without_a_background_there_are_no_rejections() -> None:
    metrics = JetMetrics(("top", "other"))
    metrics.update(torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([0, 1]))
    assert set(metrics.compute()) == {"accuracy", "auc"}

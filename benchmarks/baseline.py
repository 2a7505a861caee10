"""Classification by jet mass and multiplicity alone: ``python -m benchmarks.baseline [data.dir]``.

A trained model must be better than this. In two variables the best classifier is Bayes' rule on a histogram:
quantile bins from the training split, one pseudo-jet for each class and bin, evaluated on the test split.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import numpy.typing as npt

from jetscale.jets.datasets.jetclass import JETCLASS_LABELS
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.request import store_request

COLUMNS = ("jet_sdmass", "jet_nparticles")
BINS = 40  # a column, before equal edges are merged


def columns(settings: DataSettings, split: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """(B, 2) mass and multiplicity, and (B,) labels of a split."""
    store = ensure_store(store_request(settings, "jetclass", split))
    parts = [store.part(number).jets for number in range(len(store.entries))]
    values = np.concatenate([np.stack([part.jets[name] for name in COLUMNS], axis=1) for part in parts])
    return values.astype(np.float64), np.concatenate([part.labels for part in parts]).astype(np.int64)


def main(directory: str) -> None:
    """Print loss and accuracy of the baseline beside those of guessing."""
    settings = DataSettings(dir=directory)
    train, labels = columns(settings, "train")
    test, test_labels = columns(settings, "test")
    edges = [np.unique(np.quantile(train[:, i], np.linspace(0, 1, BINS + 1)[1:-1])) for i in range(2)]
    n_classes = len(JETCLASS_LABELS)
    counts = np.ones((len(edges[0]) + 1, len(edges[1]) + 1, n_classes))
    np.add.at(counts, (*_cells(train, edges), labels), 1)
    probabilities = counts / counts.sum(axis=2, keepdims=True)
    predicted = probabilities[_cells(test, edges)]
    loss = -np.log(predicted[np.arange(len(test)), test_labels]).mean()
    accuracy = (predicted.argmax(axis=1) == test_labels).mean()
    print(f"{len(train):,} training jets, {len(test):,} test jets")
    print(f"guessing: loss {math.log(n_classes):.4f}, accuracy {1 / n_classes:.3f}")
    print(f"mass and multiplicity: loss {loss:.4f}, accuracy {accuracy:.3f}")


def _cells(
    values: npt.NDArray[np.float64], edges: list[npt.NDArray[np.float64]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.searchsorted(edges[0], values[:, 0]), np.searchsorted(edges[1], values[:, 1])


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "data")

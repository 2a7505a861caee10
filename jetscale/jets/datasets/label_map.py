"""From the label stored with a jet to the class that a model predicts.

The public JetClass-II definition has 27 QCD classes: n_b, n_c, n_s each in {0, 1, at least 2}.
arXiv:2606.19781 counts 17, which no public code defines; the 17 here are the labels that name at most three
partons, one reading of that number, not a confirmed one. So the map is a setting, 27 the default.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jetscale.jets.datasets.labels import BUCKET_LABELS, JETCLASS2_LABELS, JETCLASS_LABELS
from jetscale.jets.errors import JetDataError

STORED_LABELS: dict[str, tuple[str, ...]] = {"jetclass": JETCLASS_LABELS, "jetclass2": JETCLASS2_LABELS}
"""Names of the labels as published and as stored, by dataset."""

QCD_MAPS = ("27", "17", "1")
"""JetClass-II: all 27 QCD classes | the 17 that name at most three partons | QCD as one class."""


@dataclass(frozen=True)
class LabelMap:
    """Classes of a model and the stored labels that they stand for.

    Attributes
    ----------
    names : K class names; position = class index in the model's output
    class_of_label : class index of each stored label; -1 for a label that belongs to no class (its jets are
        left out)
    buckets : bucket name to its class indices; empty for JetClass
    """

    names: tuple[str, ...]
    class_of_label: tuple[int, ...]
    buckets: dict[str, tuple[int, ...]]

    @property
    def n_classes(self) -> int:
        """K."""
        return len(self.names)

    def labels_of(self, classes: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Stored labels that belong to `classes`, ascending."""
        return np.flatnonzero(np.isin(np.asarray(self.class_of_label), classes))


def label_map(dataset: str, qcd_labels: str = "27") -> LabelMap:
    """Classes of a dataset.

    Raises
    ------
    JetDataError
        An unknown dataset or QCD map.
    """
    if dataset not in STORED_LABELS:
        raise JetDataError(f"no dataset {dataset!r}; there are {', '.join(STORED_LABELS)}")
    if qcd_labels not in QCD_MAPS:
        raise JetDataError(f"qcd_labels={qcd_labels!r} is none of {', '.join(QCD_MAPS)}")
    stored = STORED_LABELS[dataset]
    if dataset == "jetclass":
        return LabelMap(stored, tuple(range(len(stored))), {})
    class_names = [_class_name(name, qcd_labels) for name in stored]
    names = tuple(dict.fromkeys(name for name in class_names if name is not None))
    index = {name: number for number, name in enumerate(names)}
    of_label = tuple(-1 if name is None else index[name] for name in class_names)
    buckets = {
        bucket: tuple(sorted({of_label[stored.index(label)] for label in labels} - {-1}))
        for bucket, labels in BUCKET_LABELS.items()
    }
    return LabelMap(names, of_label, buckets)


def _class_name(label: str, qcd_labels: str) -> str | None:
    if not label.startswith("QCD_"):
        return label
    if qcd_labels == "1":
        return "QCD"
    partons = label.removeprefix("QCD_")
    if qcd_labels == "17" and partons != "light" and len(partons) > 3:
        return None
    return label

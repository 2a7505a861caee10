"""How well jets are classified: accuracy, area under the ROC curve, background rejections.

Legend: B jets of one update, J jets in all, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_auroc
from torchmetrics.utilities.data import dim_zero_cat

from jetscale.common.roc import BACKGROUND, curve, efficiency_of, signal_share

# torchmetrics warns of classes without jets and gives them an area of 0; `_auc` leaves them out
_ABSENT_CLASSES = r"No (negative|positive) samples in targets"


class JetMetrics(Metric):
    """Metrics of a set of jets, exact: every jet's probabilities are kept until `compute`.

    `compute` gives a mapping of

    - ``accuracy``: share of jets whose most probable class is the right one
    - ``auc``: mean over classes of the area under the ROC curve of that class against all others; classes
      without jets are left out
    - ``rejection_CLASS``, for each class that is no background: background jets per background jet that is
      kept, where the share `jetscale.common.roc.efficiency_of` of the jets of CLASS is kept, by a cut on
      p(CLASS) / (p(CLASS) + p(background)); infinite where no background jet is kept, nan where there are no
      jets of one kind

    Parameters
    ----------
    class_names : names of the K classes, in the order of the probabilities
    """

    full_state_update = False
    probabilities: list[Tensor]
    labels: list[Tensor]

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.add_state("probabilities", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, probabilities_BK: Tensor, labels_B: Tensor) -> None:
        """Take in some jets.

        Parameters
        ----------
        probabilities_BK : (B, K) float32, class probabilities
        labels_B : (B,) int64, class indices
        """
        self.probabilities.append(probabilities_BK)
        self.labels.append(labels_B)

    def compute(self) -> dict[str, Tensor]:
        """All metrics of the jets taken in, by name; scalars."""
        probabilities_JK, labels_J = dim_zero_cat(self.probabilities), dim_zero_cat(self.labels)
        n_classes = len(self.class_names)
        return {
            "accuracy": multiclass_accuracy(probabilities_JK, labels_J, n_classes, average="micro"),
            "auc": self._auc(probabilities_JK, labels_J),
            **self._rejections(probabilities_JK, labels_J),
        }

    def _auc(self, probabilities_JK: Tensor, labels_J: Tensor) -> Tensor:
        n_classes = len(self.class_names)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_ABSENT_CLASSES)
            area_K = multiclass_auroc(probabilities_JK, labels_J, n_classes, average="none")
        jets_K = labels_J.bincount(minlength=n_classes)
        return area_K[(jets_K > 0) & (jets_K < len(labels_J))].mean()

    def _rejections(self, probabilities_JK: Tensor, labels_J: Tensor) -> dict[str, Tensor]:
        is_background_K = np.array([name.startswith(BACKGROUND) for name in self.class_names])
        if not is_background_K.any():
            return {}
        scores_JK, numbers_J = probabilities_JK.float().cpu().numpy(), labels_J.cpu().numpy()
        of_background_J = is_background_K[numbers_J]
        found = {}
        for number in np.flatnonzero(~is_background_K):
            name = self.class_names[number]
            share_J = signal_share(scores_JK, int(number), is_background_K)
            one = curve(share_J, numbers_J == number, of_background_J)
            kept = (
                torch.nan if one is None else one.kept_background(np.ones(len(share_J)), efficiency_of(name))
            )
            found[f"rejection_{name}"] = 1 / torch.tensor(kept, device=labels_J.device)  # of 0: infinite
        return found

"""How well jets are classified: accuracy, area under the ROC curve, background rejections.

Legend: B jets of one update, J jets in all, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_roc, multiclass_accuracy, multiclass_auroc
from torchmetrics.utilities.data import dim_zero_cat

SIGNAL_EFFICIENCY = 0.5
"""Share of signal jets that are kept where a background rejection is taken."""

BACKGROUND = "QCD"
"""Classes whose names begin with this are the background."""

# torchmetrics warns of classes without jets and gives them an area of 0; `_auc` leaves them out
_ABSENT_CLASSES = r"No (negative|positive) samples in targets"


class JetMetrics(Metric):
    """Metrics of a set of jets, exact: every jet's probabilities are kept until `compute`.

    `compute` gives a mapping of

    - ``accuracy``: share of jets whose most probable class is the right one
    - ``auc``: mean over classes of the area under the ROC curve of that class against all others; classes
      without jets are left out
    - ``rejection_CLASS``, for each class that is no background: background jets per background jet that is
      kept, where `SIGNAL_EFFICIENCY` of the jets of CLASS are kept, by a cut on p(CLASS) / (p(CLASS) +
      p(background)); infinite where no background jet is kept, nan where there are no jets of one kind

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
        is_background_K = torch.tensor([name.startswith(BACKGROUND) for name in self.class_names])
        if not is_background_K.any():
            return {}
        is_background_K = is_background_K.to(labels_J.device)
        background_J = probabilities_JK[:, is_background_K].sum(dim=1)
        rejections = {}
        for number, name in enumerate(self.class_names):
            if not is_background_K[number]:
                chosen_J = (labels_J == number) | is_background_K[labels_J]
                rejections[f"rejection_{name}"] = background_rejection(
                    probabilities_JK[chosen_J, number], background_J[chosen_J], labels_J[chosen_J] == number
                )
        return rejections


def background_rejection(signal_J: Tensor, background_J: Tensor, is_signal_J: Tensor) -> Tensor:
    """Background jets per background jet that is kept at `SIGNAL_EFFICIENCY`.

    Parameters
    ----------
    signal_J, background_J : (J,) float32, probabilities of the signal class and of the background
    is_signal_J : (J,) bool, which jets are signal; the others are background

    Returns
    -------
    Scalar float32; infinite where no background jet is kept, nan without jets of one of the two kinds.
    """
    if not is_signal_J.any() or is_signal_J.all():
        return torch.tensor(torch.nan, device=signal_J.device)
    tiny = torch.finfo(signal_J.dtype).tiny  # both probabilities may have been rounded to 0
    discriminant_J = signal_J / (signal_J + background_J).clamp_min(tiny)
    kept_background, kept_signal, _ = binary_roc(discriminant_J, is_signal_J.long())
    return 1 / kept_background[kept_signal >= SIGNAL_EFFICIENCY].min()

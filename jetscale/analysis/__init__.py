"""Loss tables to exponents: sources, curves, approaches, bootstrap, allocation, figures, report.

>>> from jetscale.analysis import load_losses, fit
>>> result = fit(load_losses("losses.csv"))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jetscale.analysis.answers.fit_result import FitResult
    from jetscale.analysis.answers.fit_table import fit
    from jetscale.analysis.answers.planning import Plan, plan
    from jetscale.analysis.answers.prediction import Predictions, predict_loss
    from jetscale.analysis.fitting.numbers import Quantity
    from jetscale.analysis.settings import FitSettings
    from jetscale.analysis.tables.loading import load_losses
    from jetscale.analysis.tables.loss_table import LossTable

__all__ = [
    "FitResult",
    "FitSettings",
    "LossTable",
    "Plan",
    "Predictions",
    "Quantity",
    "fit",
    "load_losses",
    "plan",
    "predict_loss",
]

_HOMES = {
    "FitResult": "answers.fit_result",
    "FitSettings": "settings",
    "LossTable": "tables.loss_table",
    "Plan": "answers.planning",
    "Predictions": "answers.prediction",
    "Quantity": "fitting.numbers",
    "fit": "answers.fit_table",
    "load_losses": "tables.loading",
    "predict_loss": "answers.prediction",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: scipy and pandas take longer than ``--help`` may."""
    from importlib import import_module

    if name == "plan":  # the command's module, which can be called as the function
        return import_module(f"{__name__}.plan")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found

"""Loss tables to exponents: sources, curves, approaches, bootstrap, allocation, figures, report.

>>> from jetscale.analysis import load_losses, fit
>>> result = fit(load_losses("losses.csv"))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jetscale.analysis.fit_table import fit
    from jetscale.analysis.output.results import FitResult, Quantity
    from jetscale.analysis.plan import Plan, plan
    from jetscale.analysis.settings import FitSettings
    from jetscale.analysis.tables.loading import load_losses
    from jetscale.analysis.tables.loss_table import LossTable

__all__ = ["FitResult", "FitSettings", "LossTable", "Plan", "Quantity", "fit", "load_losses", "plan"]

_HOMES = {
    "FitResult": "output.results",
    "FitSettings": "settings",
    "LossTable": "tables.loss_table",
    "Plan": "plan",
    "Quantity": "output.results",
    "fit": "fit_table",
    "load_losses": "tables.loading",
    "plan": "plan",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: scipy and pandas take longer than ``--help`` may."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = found
    return found

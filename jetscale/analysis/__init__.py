"""Loss tables to exponents: sources, curves, approaches, bootstrap, allocation, figures, report.

>>> from jetscale.analysis import load_losses, fit
>>> result = fit(load_losses("losses.csv"))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jetscale.analysis.fit import fit
    from jetscale.analysis.loading import load_losses
    from jetscale.analysis.plan import Plan, plan
    from jetscale.analysis.results import FitResult, Quantity
    from jetscale.analysis.settings import FitSettings
    from jetscale.analysis.table import LossTable

__all__ = ["FitResult", "FitSettings", "LossTable", "Plan", "Quantity", "fit", "load_losses", "plan"]

_HOMES = {
    "FitResult": "results",
    "FitSettings": "settings",
    "LossTable": "table",
    "Plan": "plan",
    "Quantity": "results",
    "fit": "fit",
    "load_losses": "loading",
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

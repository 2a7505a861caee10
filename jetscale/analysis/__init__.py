"""Loss tables to exponents: sources, curves, approaches, bootstrap, allocation, figures, report."""

from __future__ import annotations

"""Figures of an analysis, drawn from results and loss table alone."""

from __future__ import annotations

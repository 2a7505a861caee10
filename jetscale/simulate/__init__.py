"""Physics to jet files: Pythia 8 events, a CMS-like detector, anti-kT jets, the published formats.

``python -m jetscale.simulate dataset=jetclass n_jets=100000``; physics in ``docs/simulation.md``.
"""

from __future__ import annotations

SIMULATOR_VERSION = 2
"""Raise it whenever the same seed gives other jets. Every file and manifest names it; what changed with each
version is in ``docs/simulation.md``."""

"""Physics to jet files: processes, decay tables, detector, clustering, truth labels."""

from __future__ import annotations

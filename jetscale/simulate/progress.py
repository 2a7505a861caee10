"""Progress of a simulation: jets, and what they cost."""

from __future__ import annotations

from dataclasses import fields

from jetscale.common import progress
from jetscale.simulate.chunk import Effort


class Progress(progress.Progress):
    """Counts jets; shows jets per second, the share of the time in Pythia and the time left.

    Parameters
    ----------
    total : jets to make
    workers : number of processes, for the message
    """

    def __init__(self, total: int, workers: int) -> None:
        super().__init__("simulate", total, "jets", rated=True)
        self.workers = workers
        self.effort = Effort()

    def advance(self, effort: Effort) -> None:
        """Add a finished chunk."""
        for field in fields(Effort):
            setattr(self.effort, field.name, getattr(self.effort, field.name) + getattr(effort, field.name))
        inside = (self.effort.pythia + self.effort.init) / max(self.effort.seconds, 1e-9)
        workers = f"{self.workers} worker{'s' * (self.workers > 1)}"
        self.update(self.effort.jets, f"{workers}, {inside:.0%} of the time in Pythia")

"""A trained tagger: the network of a finished run, its classes, and how jets become its inputs.

Shapes: J jets in all, B jets of a batch, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from jetscale.jets.batch import JetBatch
from jetscale.jets.inputs import Inputs
from jetscale.jets.reading.raw import RawJets
from jetscale.model.network import Network
from jetscale.tagger.finished_run import FinishedRun, finished_run
from jetscale.tagger.sources import OpenJets, files_named, is_named, open_arrays, open_file

BATCH = 1_000
"""Jets in one forward pass."""

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tagger:
    """A trained network, ready to score jets.

    Attributes
    ----------
    run : the finished run or pretraining
    network : takes batches of jets and gives (B, K) logits; in evaluation mode, without gradients
    class_names : names of the K classes, in the order of the scores
    inputs : how jets become inputs: feature set, standardisation, constituents kept
    weights : ``raw`` or ``ema``
    """

    run: FinishedRun
    network: Network
    class_names: tuple[str, ...]
    inputs: Inputs
    weights: str

    def scores(self, jets: str | Path | Sequence[str | Path] | Any) -> Scores:
        """Probability of each class for each jet.

        Parameters
        ----------
        jets : jet files (ROOT, parquet or HDF5, in the format of any dataset): a file, a folder, a pattern,
            or several; or the jets themselves: a record array of awkward, a data frame or a mapping with
            ``part_*`` (a list of numbers per jet; GeV, mm, rad) and, where the inputs need them, ``jet_*``
            (one number per jet). Labels are not needed

        Returns
        -------
        (J, K) float32, in the order of the jets; rows add up to 1.

        Raises
        ------
        JetDataError
            A file is damaged, or a column is missing, of another type, or holds a value that no jet has.
        UsageError
            A file is not there.
        """
        if isinstance(jets, Iterator) or _is_one_column(jets):
            # of Path.glob, or names or records in an array or a column of pandas
            jets = list(cast("Iterable[Any]", jets))
        if not is_named(jets):
            return self._joined(list(self._scored(open_arrays(jets, self.inputs.columns))))
        found: list[Scores] = []
        for path in files_named(jets):
            with open_file(path, self.inputs.columns, self.run.dataset) as opened:
                found += self._scored(opened)
        return self._joined(found)

    def score_chunk(self, raw: RawJets) -> Scores:
        """Scores of jets that were read, (B, K) float32."""
        return self._joined([self.score_batch(batch) for batch in self.inputs.batches(raw, BATCH)])

    @torch.inference_mode()
    def score_batch(self, batch: JetBatch) -> Scores:
        """Scores of one batch, (B, K) float32; in float32 throughout."""
        scores: Scores = self.network(batch).float().softmax(dim=1).numpy()
        return scores

    def _scored(self, opened: OpenJets) -> Iterator[Scores]:
        for raw in opened.chunks:
            yield self.score_chunk(raw)

    def _joined(self, parts: list[Scores]) -> Scores:
        return np.concatenate([np.empty((0, len(self.class_names)), np.float32), *parts])


def load(run: str | Path, weights: str | None = None) -> Tagger:
    """Load the tagger that a finished run trained, on the CPU: see `jetscale.load`."""
    found = finished_run(Path(run).expanduser())
    network, kind = found.network(weights)
    return Tagger(found, network, found.class_names, found.inputs, kind)


def _is_one_column(jets: Any) -> bool:
    """Whether these are one array or one column of a data frame, whose entries are names or records."""
    if isinstance(jets, np.ndarray):
        return jets.dtype.names is None
    return hasattr(jets, "iloc") and not hasattr(jets, "columns")

"""Positions to batches: gather from the memory map.

Shapes: B jets, T their constituents, F inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from jetscale.jets.batch import JetBatch
from jetscale.jets.features import FeatureSet
from jetscale.jets.label_map import LabelMap
from jetscale.jets.order import BLOCK, JetOrder
from jetscale.jets.store import Store

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Block:
    """Where each jet of a block of positions is, and its class."""

    part: Integers
    start: Integers
    length: Integers
    label: Integers
    side: npt.NDArray[np.float32]

    def __getitem__(self, chosen: slice) -> _Block:
        return _Block(
            self.part[chosen], self.start[chosen], self.length[chosen], self.label[chosen], self.side[chosen]
        )


class JetStream:
    """Batches of any range of positions.

    Parameters
    ----------
    order : which jet is at which position
    max_constituents : constituents kept per jet, leading in pT (files are sorted by pT)
    undo_deta_flip : give part_deta its geometric sign; as published it is times the sign of jet_eta
    """

    def __init__(
        self,
        store: Store,
        order: JetOrder,
        labels: LabelMap,
        features: FeatureSet,
        max_constituents: int,
        undo_deta_flip: bool,
    ) -> None:
        self._store = store
        self._order = order
        self._class_of_label = np.array(labels.class_of_label)
        self._max_constituents = max_constituents
        self._deta_column = features.deta_column if undo_deta_flip else None
        self._blocks: dict[int, _Block] = {}

    def batch(self, start: int, stop: int) -> JetBatch:
        """Jets at positions `start` to `stop`, a pure function of the two numbers."""
        places = [
            self._block(number)[max(start - number * BLOCK, 0) : stop - number * BLOCK]
            for number in range(start // BLOCK, -(-stop // BLOCK))
        ]
        jets = places[0] if len(places) == 1 else _join(places)
        x_TF, pid_T = self._gather(jets)
        if self._deta_column is not None:
            x_TF[:, self._deta_column] *= torch.from_numpy(np.repeat(jets.side, jets.length))
        return JetBatch(
            x_TF=x_TF,
            pid_T=pid_T,
            lengths_B=torch.from_numpy(jets.length.copy()),
            labels_B=torch.from_numpy(jets.label.copy()),
            positions_B=torch.arange(start, stop),
        )

    def _gather(self, jets: _Block) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Constituents of the jets, one contiguous copy each, then to float32 at once."""
        stops = (jets.start + jets.length).tolist()
        ranges = list(zip(jets.part.tolist(), jets.start.tolist(), stops, strict=True))
        packed = {number: self._store.part(number).jets for number in {number for number, _, _ in ranges}}
        x = {number: jets.x_TF for number, jets in packed.items()}
        x_TF = torch.from_numpy(np.concatenate([x[number][low:high] for number, low, high in ranges])).float()
        pid = {number: jets.pid_T for number, jets in packed.items() if jets.pid_T is not None}
        if not pid:
            return x_TF, None
        return x_TF, torch.from_numpy(
            np.concatenate([pid[number][low:high] for number, low, high in ranges])
        ).long()

    def _block(self, number: int) -> _Block:
        if number not in self._blocks:
            while len(self._blocks) > 1:
                self._blocks.pop(next(iter(self._blocks)))
            self._blocks[number] = self._locate(number)
        return self._blocks[number]

    def _locate(self, number: int) -> _Block:
        part_B, row_B = self._order.block(number)
        start, stop, label = np.empty_like(row_B), np.empty_like(row_B), np.empty_like(row_B)
        side = np.empty(len(row_B), np.float32)
        for part in np.unique(part_B):
            here = np.flatnonzero(part_B == part)
            jets, rows = self._store.part(int(part)).jets, row_B[here]
            start[here], stop[here] = jets.offsets[rows], jets.offsets[rows + 1]
            label[here] = jets.labels[rows]
            side[here] = np.where(jets.jets["jet_eta"][rows] > 0, 1, -1)
        length = np.minimum(stop - start, self._max_constituents)
        return _Block(part_B, start, length, self._class_of_label[label], side)


def _join(places: list[_Block]) -> _Block:
    return _Block(
        *(np.concatenate([getattr(place, name) for place in places]) for name in _Block.__dataclass_fields__)
    )

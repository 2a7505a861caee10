"""Inputs of a network for jets that come straight from a file or from memory, as training saw them.

Training reads packed stores, which keep the columns in half precision; here the same functions make the same
numbers without a store.

Shapes: B jets, T their constituents, F inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from jetscale.jets.batch import JetBatch
from jetscale.jets.features import FeatureSet
from jetscale.jets.kernels import unpack
from jetscale.jets.reading.raw import RawJets
from jetscale.jets.stores.packed_jets import PackedJets, pack


@dataclass(frozen=True)
class Inputs:
    """How the jets of one run became inputs.

    Attributes
    ----------
    features : the inputs of a constituent
    max_constituents : constituents kept per jet, the leading ones in pT
    undo_deta_flip : part_deta gets its geometric sign back
    """

    features: FeatureSet
    max_constituents: int
    undo_deta_flip: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Published names of the columns that the inputs are made of."""
        return tuple(dict.fromkeys((*self.features.needs, *(["jet_eta"] if self.undo_deta_flip else []))))

    def batches(self, raw: RawJets, size: int) -> list[JetBatch]:
        """Jets as batches of at most `size`, in order; positions are entry numbers, labels are as published.

        Parameters
        ----------
        raw : jets with `columns`
        size : most jets in a batch
        """
        packed = pack(raw, self.features)
        packed = replace(packed, x_TF=np.ascontiguousarray(packed.x_TF))
        return [
            self._batch(raw, packed, start, min(start + size, raw.n_jets))
            for start in range(0, raw.n_jets, size)
        ]

    def _batch(self, raw: RawJets, packed: PackedJets, start: int, stop: int) -> JetBatch:
        """Jets `start` to `stop`, as `jetscale.jets.stream.JetStream` makes them of a store."""
        features, longest = self.features, self.max_constituents
        starts_B = packed.offsets[start:stop].astype(np.int64)
        lengths_B = np.minimum(np.diff(packed.offsets[start : stop + 1]), longest).astype(np.int64)
        ends_B = np.cumsum(lengths_B)
        x_TF = np.empty((ends_B[-1], features.n_features), np.float32)
        pid_T = np.empty(ends_B[-1] if features.has_pid else 0, np.int64)
        unpack(
            packed.x_TF.view(np.uint16).reshape(-1),
            np.empty(0, np.uint8) if packed.pid_T is None else packed.pid_T,
            starts_B,
            lengths_B,
            ends_B - lengths_B,
            features.n_features,
            np.tile(np.array(features.centre, np.float32), longest),
            np.tile(1 / np.array(features.spread, np.float32), longest),
            x_TF.reshape(-1),
            pid_T,
        )
        if self.undo_deta_flip:
            side_B = np.where(raw.jets["jet_eta"][start:stop] > 0, np.float32(1), np.float32(-1))
            x_TF[:, features.deta_column] *= np.repeat(side_B, lengths_B)
        return JetBatch(
            x_TF=torch.from_numpy(x_TF),
            pid_T=torch.from_numpy(pid_T) if features.has_pid else None,
            lengths_B=torch.from_numpy(lengths_B),
            labels_B=torch.from_numpy(packed.labels[start:stop].astype(np.int64)),
            positions_B=torch.arange(raw.first_entry + start, raw.first_entry + stop),
        )

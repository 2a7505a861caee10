"""Chunks of jets as the store holds them, against batches of the same jets."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jetscale.jets.chunks import RawChunk
from jetscale.jets.errors import JetDataError
from jetscale.jets.evaluation import EvalSet
from jetscale.jets.features import FEATURE_SETS
from jetscale.jets.settings import DataSettings
from jetscale.jets.source import JetSource
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stream import JetStream
from tests.jets.stores import PART_BYTES, request

MIX = {"QCD": 15, "Res2P": 20, "Res34P": 65}


@pytest.fixture(scope="module")
def settings(jetclass2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> DataSettings:
    """Stores of several parts, one for each feature set."""
    folder = tmp_path_factory.mktemp("stores")
    for features in FEATURE_SETS:
        ensure_store(request(jetclass2_dir, folder, features=features), workers=1, part_bytes=PART_BYTES)
    return DataSettings(dir=str(jetclass2_dir), store=str(folder))


def source_of(settings: DataSettings, **more: Any) -> JetSource:
    source = JetSource(settings, "jetclass2", "train", more.get("composition", MIX), more.get("seed", 3))
    assert len(source.store.label_counts_PL) > 1, "several parts"
    return source


def widened(chunk: RawChunk, source: JetSource) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and lengths, as a device is to make them of a chunk."""
    lengths_J = chunk.offsets_J1.diff().long()
    centre, spread = (
        np.array(values, np.float32) for values in (source.features.centre, source.features.spread)
    )
    x_TF = (chunk.x_TF.float() - torch.from_numpy(centre)) * torch.from_numpy(1 / spread)
    x_TF[:, source.features.deta_column] *= chunk.side_J.float().repeat_interleave(lengths_J)
    return x_TF, lengths_J


@pytest.mark.parametrize("features", FEATURE_SETS)
@pytest.mark.parametrize("undo", [False, True])
@pytest.mark.parametrize("composition", [None, MIX])
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (37, 411), (990, 2005)])
def test_a_chunk_is_the_batch_before_it_is_widened(
    settings: DataSettings, features: str, undo: bool, composition: Any, start: int, stop: int
) -> None:
    chosen = replace(settings, features=features, undo_deta_flip=undo, max_constituents=30, repeat=True)
    source = source_of(chosen, composition=composition)
    stream = JetStream(source)
    batch, chunk = stream.batch(start, stop), stream.chunk(start, stop)
    x_TF, lengths_J = widened(chunk, source)
    assert chunk.x_TF.dtype == torch.float16
    assert torch.equal(x_TF, batch.x_TF), "to the last bit"
    assert torch.equal(lengths_J, batch.lengths_B)
    assert lengths_J.max() == 30 or stop == 1, "cut"
    assert torch.equal(chunk.labels_J.long(), batch.labels_B)
    if batch.pid_T is None:
        assert chunk.pid_T is None
    else:
        assert torch.equal(chunk.pid_T.long(), batch.pid_T)
    assert chunk.start == start
    assert (chunk.n_jets, chunk.n_constituents) == (stop - start, len(batch.x_TF))
    assert set(chunk.side_J.tolist()) <= ({-1, 1} if undo else {1})
    assert np.array_equal(stream.lengths(start, stop), batch.lengths_B.numpy())


def test_chunks_of_the_test_split(settings: DataSettings) -> None:
    test = EvalSet(settings, "jetclass2", n_jets=100)
    (batch,), chunk = test.batches(100), test.stream.chunk(0, 100)
    assert torch.equal(chunk.labels_J.long(), batch.labels_B)
    assert chunk.n_constituents == batch.n_constituents


def test_room_is_used_again(settings: DataSettings) -> None:
    stream = JetStream(source_of(settings))
    room = stream.room(64)
    assert room.n_constituents == 64 * settings.max_constituents
    for start, stop in ((100, 164), (0, 64), (300, 310)):
        chunk, fresh = stream.chunk(start, stop, room), stream.chunk(start, stop)
        assert chunk.x_TF.data_ptr() == room.x_TF.data_ptr()
        copy = fresh.copy_to(stream.room(64))
        for name in ("x_TF", "pid_T", "offsets_J1", "labels_J", "side_J"):
            assert torch.equal(getattr(chunk, name), getattr(fresh, name)), name
            assert torch.equal(getattr(copy, name), getattr(fresh, name)), name


def test_damaged_constituents_are_refused(jetclass2_dir: Path, tmp_path: Path) -> None:
    """Only verified ranges are read: a flipped bit of a jet's inputs is found before it is copied."""
    store = ensure_store(request(jetclass2_dir, tmp_path), workers=1, part_bytes=PART_BYTES)
    stream = JetStream(source_of(DataSettings(dir=str(jetclass2_dir), store=str(tmp_path)), composition=None))
    chunk = stream.chunk(0, 200)
    path = store.path / store.entries[0]["file"]
    row = np.frombuffer(path.read_bytes(), np.uint8)
    halves = store.part(0).jets.x_TF.view(np.uint16).tobytes()
    place = row.tobytes().index(halves) + len(halves) // 2
    changed = bytearray(row.tobytes())
    changed[place] ^= 0x10
    path.write_bytes(changed)
    again = JetStream(source_of(DataSettings(dir=str(jetclass2_dir), store=str(tmp_path)), composition=None))
    with pytest.raises(JetDataError, match=re.escape(str(path)) + r": damaged, checksum"):
        again.chunk(0, store.n_jets)
    assert chunk.n_jets == 200

"""The 100 released JetClass-II jets through reader, store, batches and model."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F

from jetscale.jets.datamodule import JetDataModule
from jetscale.jets.features import N_PID
from jetscale.jets.settings import DataSettings
from jetscale.model.transformer import SetTransformer


def test_real_jets_train_a_model(shared_data: Path, tmp_path: Path):
    folder = tmp_path / "JetClassII" / "Pythia"
    folder.mkdir(parents=True)
    # the sample mixes all buckets; the bucket in a file name only decides the split
    (folder / "QCD_0000.parquet").symlink_to(shared_data / "JetClassII_example.parquet")
    table = pq.read_table(shared_data / "JetClassII_example.parquet", columns=["part_px"])
    constituents = len(pc.list_flatten(table["part_px"]))
    settings = DataSettings(dir=str(tmp_path), repeat=True)
    data = JetDataModule(settings, "jetclass2", composition=None, batch_size=100, n_steps=30, seed=0)
    data.prepare_data()
    data.setup()
    torch.manual_seed(0)
    model = SetTransformer(16, data.n_classes, data.n_features, N_PID)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for batch in data.train_dataloader():
        assert batch.n_jets == 100
        assert batch.n_constituents == constituents
        loss = F.cross_entropy(model(batch), batch.labels_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert abs(losses[0] - math.log(188)) < 0.2
    assert losses[-1] < losses[0] - 0.5

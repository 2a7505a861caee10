"""The Lightning loop with all its tracking against a bare PyTorch loop of the same steps, at width 8."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from jetscale.jets.batch import JetBatch
from jetscale.model.transformer import SetTransformer
from jetscale.tracking.run_directory import RunDirectory
from jetscale.tracking.wandb_run import WandbRun
from jetscale.training.build import outputs_of
from jetscale.training.phase import fit_phase
from jetscale.training.settings import FinetuneSettings, TrainSettings

STEPS, REPEATS, DIM, BATCH = 60, 5, 8, 128
TARGET = 1.15


def batches() -> list[JetBatch]:
    """Random jets with 40 constituents on average."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for step in range(STEPS):
        lengths_B = torch.randint(10, 71, (BATCH,), generator=generator)
        total = int(lengths_B.sum())
        made.append(
            JetBatch(
                x_TF=torch.randn(total, 8, generator=generator),
                pid_T=torch.randint(1, 9, (total,), generator=generator),
                lengths_B=lengths_B,
                labels_B=torch.randint(0, 10, (BATCH,), generator=generator),
                positions_B=torch.arange(step * BATCH, (step + 1) * BATCH),
            )
        )
    return made


class InMemory(L.LightningDataModule):
    """Ready batches: the loader has a benchmark of its own."""

    fingerprint = "benchmark"
    start_step = 0

    def __init__(self, made: list[JetBatch]) -> None:
        super().__init__()
        self.made = made

    def train_dataloader(self) -> DataLoader[JetBatch]:
        """All of them, in order."""
        return DataLoader(self.made, batch_size=None)  # type: ignore[arg-type]


def bare(made: list[JetBatch]) -> float:
    """Seconds of a plain loop."""
    torch.manual_seed(0)
    model = SetTransformer(DIM, 10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    start = time.perf_counter()
    for batch in made:
        optimizer.zero_grad()
        F.cross_entropy(model(batch.x_TF, batch.pid_T, batch.lengths_B), batch.labels_B).backward()
        optimizer.step()
    return time.perf_counter() - start


def tracked(made: list[JetBatch]) -> float:
    """Seconds of the same steps as a run makes them, metrics, average and checkpoints included."""
    torch.manual_seed(0)
    settings = TrainSettings(checkpoint_every=STEPS // 2)
    settings.finetune = FinetuneSettings(steps=STEPS, batch_size=BATCH, warmup=10)
    settings.tracking.log_every = 20
    settings.device.accelerator = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        silent = WandbRun("disabled", Path(folder), {}, project="", entity=None, group="", name="", tags=[])
        outputs = outputs_of("finetune", RunDirectory(Path(folder), "x"), silent)
        data: Any = InMemory(made)
        return fit_phase(settings, settings.finetune, SetTransformer(DIM, 10), data, outputs, None).record[
            "seconds"
        ]


def run() -> dict[str, dict[str, Any]]:
    """Ratio of the medians, the two timed in turn."""
    torch.set_num_threads(1)
    made = batches()
    bare(made), tracked(made)
    pairs = [(tracked(made), bare(made)) for _ in range(REPEATS)]
    ours, reference = (statistics.median(side) / STEPS * 1e3 for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    return {
        "loop_dim8": {
            "ratio": ratio, "target": TARGET, "met": ratio <= TARGET, "ours": ours, "reference": reference,
            "unit": "ms per step, Lightning over bare (lower is better)",
        }
    }  # fmt: skip


if __name__ == "__main__":
    print(run())

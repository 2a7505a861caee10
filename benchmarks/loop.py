"""The Lightning loop with all its tracking against a bare PyTorch loop of the same steps, at width 8.

    python -m benchmarks.loop

Metrics lines and checkpoints are written as often as in the quickstart, which writes them most often.
"""

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

from benchmarks.measure import Rows, row
from jetscale.jets.batch import JetBatch
from jetscale.model.transformer import SetTransformer
from jetscale.runs.directory import RunDirectory
from jetscale.tracking.wandb_environment import Destination
from jetscale.tracking.wandb_run import WandbRun
from jetscale.training.build import outputs_of
from jetscale.training.phase import fit_phase
from jetscale.training.phase_settings import FinetuneSettings, Phase
from jetscale.training.settings import TrainSettings

STEPS, REPEATS, DIM, BATCH = 301, 9, 8, 128
LOG_EVERY, CHECKPOINT_EVERY = 20, 100
TARGET = 1.10


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


class Stamped(list[JetBatch]):
    """Batches that note the processor time at which each is asked for."""

    def __init__(self, made: list[JetBatch]) -> None:
        super().__init__(made)
        self.stamps: list[float] = []

    def __getitem__(self, index: Any) -> Any:
        self.stamps.append(time.process_time())
        return super().__getitem__(index)

    @property
    def milliseconds(self) -> float:
        """Mean of a step, all that happens between the first and the last included."""
        return 1e3 * (self.stamps[-1] - self.stamps[0]) / (len(self.stamps) - 1)


class InMemory(L.LightningDataModule):
    """Ready batches: the loader has its own benchmark."""

    fingerprint = "benchmark"
    start_step = 0

    def __init__(self, made: list[JetBatch]) -> None:
        super().__init__()
        self.made = Stamped(made)

    def train_dataloader(self) -> DataLoader[JetBatch]:
        """All of them, in order."""
        return DataLoader(self.made, batch_size=None)


def bare(made: list[JetBatch]) -> float:
    """Milliseconds a step of a plain loop."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(False)  # Lightning leaves it on, which fills all new memory
    model = SetTransformer(DIM, 10)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    stamped = Stamped(made)
    for index in range(len(stamped)):
        batch = stamped[index]
        optimizer.zero_grad()
        F.cross_entropy(model(batch), batch.labels_B).backward()
        optimizer.step()
    return stamped.milliseconds


def tracked(made: list[JetBatch]) -> float:
    """The same of a run, metrics, average and checkpoints included."""
    torch.manual_seed(0)
    settings = TrainSettings(checkpoint_every=CHECKPOINT_EVERY)
    settings.finetune = FinetuneSettings(steps=STEPS, batch_size=BATCH, warmup=10)
    settings.tracking.log_every = LOG_EVERY
    settings.device.accelerator = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        silent = WandbRun("disabled", Path(folder), {}, Destination(None, None, "", "", ()))
        outputs = outputs_of(Phase.FINETUNE, RunDirectory(Path(folder), "x"), silent)
        data: Any = InMemory(made)
        fit_phase(settings, settings.finetune, SetTransformer(DIM, 10), data, outputs, None)
    stamped: Stamped = data.made
    return stamped.milliseconds


def run() -> Rows:
    """Medians, the two timed in turn."""
    torch.set_num_threads(1)
    made = batches()
    bare(made), tracked(made)
    pairs = [(tracked(made), bare(made)) for _ in range(REPEATS)]
    reference = statistics.median(reference for _, reference in pairs)
    ours = reference * statistics.median(ours / reference for ours, reference in pairs)
    return {"loop_dim8": row(ours, reference, TARGET, "ms/step", floor=reference)}


if __name__ == "__main__":
    print(run())

"""Our module and our jets in a `lightning.Trainer` of the user's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from jetscale.jets.settings import DataSettings
from jetscale.runs.directory import RunDirectory
from jetscale.tracking.wandb_environment import Destination
from jetscale.tracking.wandb_run import WandbRun
from jetscale.training.build import build, outputs_of
from jetscale.training.jet_metrics import JetMetrics
from jetscale.training.module import JetClassifier
from jetscale.training.phase import fit_phase
from jetscale.training.phase_settings import FinetuneSettings, Phase
from jetscale.training.settings import EvalSettings, ModelSettings, TrainSettings
from tests.conftest import REPO
from tests.warm import WarmServer

pytestmark = [
    pytest.mark.xdist_group("lightning"),  # they share simulated jets
    pytest.mark.filterwarnings(
        "ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated"
    ),  # in lightning 2.6
    pytest.mark.filterwarnings("ignore:The `srun` command is available"),  # where Slurm is installed
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]
STEPS = 24


@pytest.fixture(scope="module")
def data(simulated_data: Path, warm: WarmServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulated jets, and a few to validate."""
    folder = tmp_path_factory.mktemp("own") / "data"
    words = ["dataset=jetclass", "n_jets=0", "n_val=40", "n_test=0", "mpi=false", "workers=1"]
    done = warm.run("jetscale.simulate", [*words, f"out={folder}"], folder.parent)
    assert done.returncode == 0, done.stderr
    for split in ("train_100M", "test_20M"):
        (folder / "JetClass/Pythia" / split).symlink_to(simulated_data / "JetClass/Pythia" / split)
    return folder


def settings_of(data: Path) -> TrainSettings:
    """A run in which nothing is left out: warm-up, schedule, clipping."""
    return TrainSettings(
        model=ModelSettings(dim=8),
        data=DataSettings(dir=str(data)),
        finetune=FinetuneSettings(steps=STEPS, batch_size=8, warmup=5, schedule="cosine", clip=0.5, lr=3e-3),
        eval=EvalSettings(jets=40, batch_size=32),
        checkpoint_every=1_000,
    )


def trained(
    data: Path, *callbacks: L.Callback, steps: int = STEPS, **fit: Any
) -> tuple[L.Trainer, JetClassifier]:
    phase, network, jets = build(settings_of(data), Phase.FINETUNE)
    module = JetClassifier(network, phase, jets.class_names)
    trainer = L.Trainer(
        accelerator="cpu", max_steps=steps, val_check_interval=8, log_every_n_steps=1, callbacks=[*callbacks],
        logger=False, enable_progress_bar=False, enable_model_summary=False, deterministic=True,
        default_root_dir=data.parent,
        enable_checkpointing=any(isinstance(one, ModelCheckpoint) for one in callbacks),
    )  # fmt: skip
    trainer.fit(module, datamodule=jets, **fit)
    return trainer, module


class Losses(L.Callback):
    """Remembers what arrived in ``callback_metrics`` after each step."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        self.losses[trainer.global_step] = float(trainer.callback_metrics["train_loss"])


def test_the_example_of_the_documentation_runs_word_for_word(data: Path, monkeypatch: Any) -> None:
    page = (REPO / "docs/training.md").read_text()
    (example,) = [
        code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "L.Trainer(" in code
    ]
    monkeypatch.chdir(data.parent)
    variables: dict[str, Any] = {}
    exec(compile(example, "docs/training.md", "exec"), variables)
    trainer, best = variables["trainer"], variables["best"]
    assert trainer.global_step == 60
    log = pd.read_csv(Path(trainer.logger.log_dir, "metrics.csv"))
    assert log["train_loss"].notna().any()
    validated = log.dropna(subset=["val_loss"]).drop_duplicates("step")
    assert validated["step"].tolist()[:3] == [19, 39, 59]
    assert float(best.best_model_score) == pytest.approx(validated["val_loss"].min())
    assert f"step={validated['step'][validated['val_loss'].idxmin()] + 1}" in best.best_model_path
    assert validated["val_accuracy"].between(0, 1).all()
    assert log["lr-AdamW"].dropna().tolist() == [1e-3] * 6

    # what is predicted gives what was tested
    (tested,) = variables["tested"]
    predictions = variables["predictions"]
    metrics = JetMetrics(variables["data"].class_names)
    for part in predictions:
        metrics.update(part.probabilities_BK, part.labels_B)
    again = {f"test_{name}": float(value) for name, value in metrics.compute().items()}
    assert again == pytest.approx(
        {name: value for name, value in tested.items() if name != "test_loss"}, rel=0, abs=0, nan_ok=True
    )
    probabilities = torch.cat([part.probabilities_BK for part in predictions])
    assert probabilities.shape == (40, 10)
    assert torch.allclose(probabilities.sum(dim=1), torch.ones(40))
    assert torch.cat([part.positions_B for part in predictions]).tolist() == list(range(40))
    labels = torch.cat([part.labels_B for part in predictions])
    loss = -probabilities[torch.arange(40), labels].log().mean()
    assert float(loss) == pytest.approx(tested["test_loss"], rel=1e-5)
    assert len(labels.unique()) > 5


def test_it_takes_the_same_steps_as_our_own_runs_to_the_last_bit(data: Path, tmp_path: Path) -> None:
    settings = settings_of(data)
    settings.tracking.log_every = 1
    settings.device.accelerator = "cpu"
    phase, network, jets = build(settings, Phase.FINETUNE)
    silent = WandbRun("disabled", tmp_path, {}, Destination(None, None, "", "", ()))
    outputs = outputs_of(Phase.FINETUNE, RunDirectory(tmp_path, "x"), silent)
    ours = fit_phase(settings, phase, network, jets, outputs, test=None)
    losses = Losses()
    trainer, module = trained(data, losses)
    assert trainer.global_step == STEPS
    assert losses.losses == {line["step"]: line["loss"] for line in outputs.metrics.read()}
    theirs = module.model.state_dict()
    assert all(torch.equal(theirs[name], weights) for name, weights in ours.weights.items())


def test_it_goes_on_from_lightnings_checkpoint_with_the_next_batch(data: Path, tmp_path: Path) -> None:
    whole, rest = Losses(), Losses()
    _, undisturbed = trained(data, whole)
    half, after = (ModelCheckpoint(tmp_path, filename="half", every_n_train_steps=10) for _ in range(2))
    trained(data, half, steps=10)
    kept = (tmp_path / "half.ckpt").rename(tmp_path / "kept.ckpt")
    _, resumed = trained(data, rest, after, ckpt_path=kept)
    assert rest.losses == {step: loss for step, loss in whole.losses.items() if step > 10}
    weights = undisturbed.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in resumed.model.state_dict().items())


def test_the_learning_rate_is_that_of_our_own_runs(data: Path) -> None:
    class Rates(L.Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_before_optimizer_step(self, trainer: L.Trainer, module: Any, optimizer: Any) -> None:
            self.seen.append(optimizer.param_groups[0]["lr"])

    rates = Rates()
    _, module = trained(data, rates, steps=10)
    assert rates.seen == [module.rate(step) for step in range(10)]

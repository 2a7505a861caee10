"""Callbacks and loggers that the settings name: what is refused, and when the others are called."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

from jetscale.common.trust import VARIABLE
from jetscale.common.usage import SettingsError
from jetscale.launch.hydra_setup import run_suffix
from jetscale.runs.metrics import MetricsLine
from jetscale.training import phase as phases
from jetscale.training.phase_settings import PretrainSettings
from jetscale.training.run import run
from jetscale.training.settings import TrainSettings, from_config
from jetscale.training.user_additions import require_plain_state, user_callbacks, user_loggers
from tests.runs import TINY, killed_after, metrics_of

CSV = "lightning.pytorch.loggers.CSVLogger"
MINE = {"mine": {"_target_": "my_lab.Callback"}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"callbacks": MINE},
            r"callbacks: mine\._target_='my_lab\.Callback' would be called .* add --trust my_lab",
        ),
        (
            {"callbacks": {"a": {"_target_": CSV, "b": {"_target_": "os.system"}}}},
            r"a\.b\._target_='os.system'",
        ),
        (
            {"callbacks": {"a": {"_target_": "lightning.pytorch.callbacks.ModelSummary", "b": [math.nan]}}},
            r"callbacks\.a\.b\.0=nan: must be a finite number",
        ),
        ({"loggers": {"mine": {"_target_": "os.system"}}}, r"loggers: mine\._target_='os.system'"),
        ({"callbacks": [{"_target_": "my_lab.Callback"}]}, r"callbacks=.*must be \{NAME: "),
        ({"callbacks": {"mine": "my_lab.Callback"}}, r"callbacks\.mine=my_lab\.Callback: must be a mapping"),
    ],
)
def test_code_that_no_one_vouched_for_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        from_config(given)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint"},
            "writes checkpoints, which a run does",
        ),
        ({"_target_": CSV, "save_dir": "."}, "CSVLogger is no lightning.Callback"),
        (
            {"_target_": "lightning.pytorch.callbacks.DeviceStatsMonitor", "every": 3},
            "cannot be made .*every",
        ),
        ({"_target_": "lightning.pytorch.callbacks.NoSuch"}, "callbacks.a: .*NoSuch cannot be made"),
    ],
)
def test_what_is_no_callback_of_a_run(entry: dict[str, Any], message: str, monkeypatch: Any) -> None:
    monkeypatch.setenv(VARIABLE, "lightning.pytorch.callbacks")
    with pytest.raises(SettingsError, match=message):
        user_callbacks({"a": entry})


def test_a_logger_without_a_folder_gets_the_run_directory(tmp_path: Any) -> None:
    (logger,) = user_loggers({"mine": {"_target_": CSV}}, tmp_path).all
    assert isinstance(logger, CSVLogger)
    assert Path(logger.log_dir) == tmp_path / "mine"
    (logger,) = user_loggers({"csv": {"_target_": CSV, "save_dir": "elsewhere"}}, tmp_path).all
    assert Path(logger.log_dir) == Path("elsewhere/csv")
    given = {"_target_": CSV, "name": "theirs", "version": 3}
    (logger,) = user_loggers({"csv": given}, tmp_path).all
    assert Path(logger.log_dir) == tmp_path / "theirs/version_3"


def test_a_state_that_no_checkpoint_could_give_back() -> None:
    plain = {"norms": {10: 1.5}, "mean": torch.ones(2), "names": ["a"]}
    assert require_plain_state("mine", plain) is plain
    with pytest.raises(SettingsError, match=r"callbacks\.mine: its state_dict\(\) holds more than"):
        require_plain_state("mine", {"model": torch.nn.Linear(1, 1)})


def test_callbacks_belong_to_the_run_and_its_folder_loggers_to_neither() -> None:
    pretrain = PretrainSettings(composition={"QCD": 1})
    plain = TrainSettings(pretrain=pretrain)
    watched, logged = replace(plain, callbacks=MINE), replace(plain, loggers=MINE)
    assert plain.identity() == logged.identity() != watched.identity()
    assert plain.backbone_identity() == logged.backbone_identity() != watched.backbone_identity()
    assert run_suffix(["loggers.a={_target_: b}", "loggers={}"]) == ""
    assert run_suffix(["callbacks.a={_target_: b}"]).startswith("callbacks.a=")


class Witness(Callback):
    """Remembers the order of the callbacks, and what was written when it was called."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.checkpoints: dict[int, bool] = {}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: object) -> None:
        self.order = [type(one).__name__ for one in trainer.callbacks]
        self.checkpoints[pl_module.step] = bool(
            [*Path(trainer.default_root_dir).glob("checkpoints/*.last.pt")]
        )


@pytest.fixture
def settings(simulated_data: Path) -> TrainSettings:
    """Of a tiny run on the simulated jets."""
    from hydra import compose, initialize_config_dir

    from jetscale.common.config_safety import CONF
    from jetscale.launch.hydra_setup import register

    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return from_config(compose("train", overrides=[*TINY, f"data.dir={simulated_data}"]))


def test_the_order_of_a_run_is_the_documented_one(settings, tmp_path, monkeypatch: Any) -> None:
    """Test lines come before a user's callback, the checkpoint with its state after it."""
    witness = Witness()
    monkeypatch.setattr(phases, "user_callbacks", lambda _: {"witness": witness})
    run(settings, tmp_path / "run")
    assert witness.order == [
        "MetricsWriter", "TestEvaluator", "Witness", "Checkpointer", "Preemption", "PhaseProgress",
    ]  # fmt: skip
    assert [witness.checkpoints[step] for step in (6, 7, 8)] == [False, False, True]


class Stopper(Callback):
    """Ends a phase, as Lightning's `EarlyStopping` and `Timer` do."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: object) -> None:
        trainer.should_stop = pl_module.step >= self.after


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_a_phase_that_a_callback_ends_is_not_finished(settings, tmp_path, monkeypatch: Any, phase) -> None:
    """Its D would be that of all steps, and a backbone would be found by others."""
    settings.pretrain.library = str(tmp_path / "library")
    if phase == "pretrain":
        settings.subset, settings.pretrain.composition = "qcd", {"QCD": 1}
    steps = 24 if phase == "pretrain" else 40
    monkeypatch.setattr(phases, "user_callbacks", lambda _: {"mine": Stopper(13)})
    with pytest.raises(SettingsError, match=rf"^{phase} ended after step 13 of {steps}, .*{phase}\.steps"):
        run(settings, tmp_path / "run")
    assert not [*tmp_path.rglob("done.json"), *tmp_path.rglob("final.pt")]
    monkeypatch.setattr(phases, "user_callbacks", lambda _: {"mine": Stopper(steps)})
    settings.finetune.steps = steps  # at the last step there is nothing left to end
    assert run(settings, tmp_path / "again").steps == steps


def test_what_lightning_refuses_is_told_with_the_callback_and_the_way_out(settings, tmp_path) -> None:
    target = "lightning.pytorch.callbacks.DeviceStatsMonitor"
    settings.callbacks = {"stats": {"_target_": target}}
    message = (
        rf"^callbacks\.stats={target}: Lightning refuses: .*logger.*; a logger is missing, .*loggers\.csv="
    )
    with pytest.raises(SettingsError, match=message):
        run(settings, tmp_path / "run")
    settings.loggers = {"csv": {"_target_": CSV}}
    assert run(settings, tmp_path / "run").steps == 40


SETTINGS = {"lr": 1e-3, "subset": "scratch", "model": {"dim": 8}}


def lines_of(phase: str, split: str, steps: range) -> list[MetricsLine]:
    accuracy = 0.5 if split == "test" else None
    return [
        MetricsLine(phase, step, 8 * step, 1, 1e3 * step, split, "raw", 2 - step / 100, accuracy, 1e-3, 0.1)
        for step in steps
    ]


def log_a_run_that_is_killed(named: dict[str, Any], run: Path) -> None:
    """Pretraining, fine-tuning to step 8, a kill; then from the checkpoint of step 5 to step 10."""
    pretraining = lines_of("pretrain", "train", range(1, 21))
    for kept, last in ((0, 8), (5, 10)):
        loggers = user_loggers(named, run)
        loggers.log_settings(SETTINGS)
        loggers.log(*pretraining)
        for logger in loggers.all:
            logger.finalize("success")  # as a Trainer does at the end of every phase
        loggers.log(*(line for step in range(1, kept + 1) for line in both(step)))
        for step in range(kept + 1, last + 1):
            for line in both(step):
                loggers.log(line)
    for logger in loggers.all:
        logger.finalize("success")


def both(step: int) -> list[MetricsLine]:
    """The lines of one step of fine-tuning: every second one has an evaluation."""
    here = range(step, step + 1)
    return [
        *lines_of("finetune", "train", here),
        *(lines_of("finetune", "test", here) if step % 2 == 0 else []),
    ]


def test_a_csv_file_holds_each_line_once_also_after_a_kill(tmp_path: Path) -> None:
    log_a_run_that_is_killed({"csv": {"_target_": CSV}}, tmp_path)
    rows = list(csv.DictReader((tmp_path / "csv/metrics.csv").read_text().splitlines()))
    told = {
        key: [(int(row["step"]), float(row[key])) for row in rows if row.get(key)]
        for key in (
            "pretrain/train_loss",
            "finetune/train_loss",
            "finetune/test_loss",
            "finetune/test_accuracy",
        )
    }
    assert told == {
        "pretrain/train_loss": [(step, 2 - step / 100) for step in range(1, 21)],
        "finetune/train_loss": [(step, 2 - step / 100) for step in range(1, 11)],
        "finetune/test_loss": [(step, 2 - step / 100) for step in range(2, 11, 2)],
        "finetune/test_accuracy": [(step, 0.5) for step in range(2, 11, 2)],
    }
    assert yaml.safe_load((tmp_path / "csv/hparams.yaml").read_text()) == SETTINGS


def test_tensorboard_shows_each_point_once_also_after_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    target = "lightning.pytorch.loggers.TensorBoardLogger"
    log_a_run_that_is_killed({"board": {"_target_": target}}, tmp_path)
    shown = EventAccumulator(str(tmp_path / "board")).Reload()
    points = {
        tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]
    }
    for tag, steps in (
        ("pretrain/train_loss", range(1, 21)),
        ("finetune/train_loss", range(1, 11)),
        ("finetune/test_loss", range(2, 11, 2)),
    ):
        assert points[tag] == [(step, pytest.approx(2 - step / 100)) for step in steps], tag
    assert [step for step, _ in points["finetune/test_accuracy"]] == list(range(2, 11, 2))
    assert yaml.safe_load((tmp_path / "board/hparams.yaml").read_text())["lr"] == 1e-3
    assert "_hparams_/session_start_info" in shown.summary_metadata


@pytest.mark.slow
def test_loggers_of_a_killed_run_that_pretrains(train, warm, tmp_path, simulated_data) -> None:
    """Both phases are in the run's own folder, each line once, at its step, and the settings beside them."""
    words = [
        *TINY, "+experiment=qcd", f"data.dir={simulated_data}", f"hydra.run.dir={tmp_path}/run",
        f"pretrain.library={tmp_path}/library", f"loggers.csv={{_target_: {CSV}}}",
    ]  # fmt: skip
    killed_after(warm, 24 + 20, words, tmp_path / "library", tmp_path / "run", pretrain_steps=24)
    train(*words)
    log = tmp_path / "run/csv/metrics.csv"
    assert list(tmp_path.rglob("metrics.csv")) == [log]
    rows = list(csv.DictReader(log.read_text().splitlines()))
    lines = metrics_of(tmp_path / "run")
    assert len(rows) == len(lines)
    for phase, split, weights in {(line["phase"], line["split"], line["weights"]) for line in lines}:
        name = f"{phase}/{split}_loss" + ("" if weights == "raw" else f"_{weights}")
        told = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
        found = [line for line in lines if (line["phase"], line["split"]) == (phase, split)]
        assert told == [(line["step"], line["loss"]) for line in found if line["weights"] == weights]
    settings = yaml.safe_load((tmp_path / "run/csv/hparams.yaml").read_text())
    assert (settings["dim"], settings["lr"], settings["pretrain_steps"]) == (8, 1e-3, 24)

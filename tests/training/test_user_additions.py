"""Callbacks and loggers that the settings name: what is refused, and when the others are called."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

from jetscale.common.trust import VARIABLE
from jetscale.launch.hydra_setup import run_suffix
from jetscale.training import phase as phases
from jetscale.training.settings import PretrainSettings, SettingsError, TrainSettings, from_config
from jetscale.training.user_additions import require_plain_state, user_callbacks, user_loggers
from tests.runs import TINY, metrics_of

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
    (logger,) = user_loggers({"csv": {"_target_": CSV}}, tmp_path)
    assert isinstance(logger, CSVLogger)
    assert logger.save_dir == str(tmp_path)
    (logger,) = user_loggers({"csv": {"_target_": CSV, "save_dir": "elsewhere"}}, tmp_path)
    assert logger.save_dir == "elsewhere"


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


def test_the_order_of_a_run_is_the_documented_one(simulated_data, tmp_path, monkeypatch: Any) -> None:
    """Test lines come before a user's callback, the checkpoint with its state after it."""
    from hydra import compose, initialize_config_dir

    from jetscale.common.config_safety import CONF
    from jetscale.launch.hydra_setup import register
    from jetscale.training.run import run

    witness = Witness()
    monkeypatch.setattr(phases, "user_callbacks", lambda _: {"witness": witness})
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = from_config(compose("train", overrides=[*TINY, f"data.dir={simulated_data}"]))
    run(settings, tmp_path / "run")
    assert witness.order == [
        "MetricsWriter", "TestEvaluator", "Witness", "Checkpointer", "Preemption", "PhaseProgress",
    ]  # fmt: skip
    assert [witness.checkpoints[step] for step in (6, 7, 8)] == [False, False, True]


@pytest.mark.slow
def test_a_logger_receives_every_line(train, tmp_path) -> None:
    train(*TINY, f"hydra.run.dir={tmp_path}/run", f"loggers.csv={{_target_: {CSV}}}")
    (log,) = (tmp_path / "run").rglob("metrics.csv")
    rows = list(csv.DictReader(log.read_text().splitlines()))
    for split in ("train", "test"):
        name = f"finetune/{split}_loss"
        told = {int(row["step"]): float(row[name]) for row in rows if row.get(name)}
        lines = [line for line in metrics_of(tmp_path / "run") if line["weights"] == "raw"]
        assert told == {line["step"]: line["loss"] for line in lines if line["split"] == split}

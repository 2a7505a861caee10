from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from jetscale.common.config_safety import CONF
from jetscale.common.usage import UsageError
from jetscale.launch.hydra_setup import register
from jetscale.launch.packs import _gpu_of
from jetscale.launch.slurm import Queue

LIMITS = {"wait": True, "array_parallelism": 1, "signal_delay_s": 30, "max_num_timeout": 1}


def test_workers_share_the_gpus_of_a_job(monkeypatch):
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [_gpu_of(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(4)] == ["2", "5", "2", "5"]
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")  # one run over both
    assert _gpu_of(0) == {}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert _gpu_of(0) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runs_per_job": 0, "parallel": 1}, "at least one run a job"),
        ({"runs_per_job": 2, "parallel": 3}, "no more at once"),
        ({"runs_per_job": 2, "parallel": 2, "account": "SET_ME"}, r"hydra\.launcher\.account is not set"),
    ],
)
def test_settings_that_cannot_work_are_named(tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        Queue(tmp_path, **LIMITS, **settings)


@pytest.mark.parametrize("name", ["slurm", "perlmutter"])
def test_launchers_take_what_their_files_set(name, tmp_path):
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            "train", [f"hydra/launcher={name}", "hydra.launcher.account=m1"], return_hydra_config=True
        )
    settings = {key: value for key, value in config.hydra.launcher.items() if key != "_target_"}
    Queue(tmp_path, **settings)

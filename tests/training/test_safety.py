"""Files from strangers run no code, paths stay where they belong, secrets stay where they are."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from omegaconf import OmegaConf

from jetscale.common.config_safety import CONF, ConfigFileError, check_config_files
from jetscale.common.files import WriteError
from jetscale.common.masking import masked
from jetscale.common.usage import SettingsError
from jetscale.jets.stores.packed_jets import map_batches
from jetscale.runs.layout import BACKBONES, NOT_RUNS
from jetscale.runs.metrics import MetricsLine, MetricsLog
from jetscale.training.settings import folder_name, from_config, to_yaml
from tests.runs import TINY


class Evil:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_an_arrow_file_cannot_run_code(tmp_path) -> None:
    """The extension type of CVE-2023-47248, which old pyarrow unpickled on reading."""
    mark = tmp_path / "ran"
    bait = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Evil(mark)),
    }
    schema = pa.schema([pa.field("label", pa.uint8(), metadata=bait)])
    with pa.ipc.new_file(str(tmp_path / "part_00000.arrow"), schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays([pa.array([1], pa.uint8())], schema=schema))
    _, (batch,) = map_batches(tmp_path / "part_00000.arrow")
    assert batch.column("label").type == pa.uint8()
    assert not mark.exists()
    pickle.loads(pickle.dumps(Evil(mark)))  # the bait is real
    assert mark.exists()


EVIL_FILES = {
    "experiment/evil.yaml": [
        "# @package _global_\nhydra: {callbacks: {x: {_target_: os.system, command: 'touch ran'}}}\n",
        "# @package hydra.callbacks.x\n_target_: os.system\ncommand: touch ran\n",
        "# @package _global_\nhydra: {job_logging: {handlers: {x: {(): os.system, command: ls}}}}\n",
        "# @package _global_\nhydra: {launcher: {setup: [touch ran]}}\n",
        "# @package _global_\nhydra: {run: {dir: ../../elsewhere}}\n",
        "# @package _global_\nhydra.run.dir: /elsewhere\n",
        "# @package _global_\nhydra: {job: {env_set: {PYTHONPATH: /evil}}}\n",
        "# @package _global_\ndefaults: [{override /hydra/launcher: mine}]\nsubset: x\n",
        "# @package _global_\ndefaults: [/experiment/other@hydra.callbacks]\n",
        "# @package _global_\nfinetune: {lr: {_target_: builtins.eval, _args_: ['1']}}\n",
        "# @package _global_\nsubset: '${oc.env:SECRET}'\n",
        "# @package _global_\nsubset: '${ oc.env :SECRET,x}'\n",
        "# @package _global_\nsubset: 'a${oc.decode:${oc.env:SECRET}}'\n",
        "# @package _global_\nsubset: 'x'\nstudy: '${${subset}:SECRET}'\n",
        "!!python/object/apply:os.system ['touch ran']\n",
    ],
    "hydra/launcher/mine.yaml": [
        "_target_: jetscale.launch.hydra_setup.ClosingTable\n", "_target_: os.system\n",
    ],
    "train.yaml": ["hydra: {searchpath: [file:///evil]}\n"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in EVIL_FILES.items() for text in texts]
)
def test_a_config_file_from_a_stranger_is_refused_before_hydra_reads_it(tmp_path, name, text) -> None:
    path = tmp_path / "theirs" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    for flags in (["--config-dir", f"{tmp_path}/theirs"], [f"hydra.searchpath=[file://{tmp_path}/theirs]"]):
        with pytest.raises(ConfigFileError, match=re.escape(str(path))):
            check_config_files(["+experiment=evil", *flags], CONF)
    shutil.copytree(CONF, tmp_path / "conf")  # dropped into the checkout
    if name.startswith("experiment"):
        shutil.copy(path, tmp_path / "conf/experiment/evil.yaml")
        with pytest.raises(ConfigFileError, match=r"evil\.yaml"):
            check_config_files([], tmp_path / "conf")


def test_our_own_files_and_honest_experiments_pass(tmp_path) -> None:
    check_config_files(["-m", "+sweep=paper"], CONF)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(
        "# @package _global_\ndefaults: [{override /budget: laptop}]\nsubset: mine\nstudy: ${subset}-study\n"
        "pretrain: {composition: {X_bb: 1}}\nhydra: {sweeper: {params: {seed: '0,1'}}}\n"
    )
    check_config_files(["--config-dir", str(tmp_path)], CONF)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("finetune:\n  lr: {table: {8: 3e-3, 16: 1e-3, 8: 1e-2}}\n", "line 2: the key 8 "),
        ("finetune: {lr: {table: {8: 3e-3, 8.0: 1e-2}}}\n", "line 1: the key 8.0 "),
        ("hydra: {sweeper: {params: {seed: '0', seed: '1'}}}\n", "line 1: the key seed "),
    ],
)
def test_a_key_that_a_file_has_twice_is_refused(tmp_path, text, key) -> None:
    """OmegaConf would take the second of two numbers, and train with another rate than the first says."""
    (tmp_path / "budget").mkdir()
    (tmp_path / "budget/mine.yaml").write_text(text)
    with pytest.raises(ConfigFileError, match=rf"budget/mine\.yaml.*{re.escape(key)}"):
        check_config_files(["--config-dir", str(tmp_path)], CONF)


@pytest.mark.slow
def test_the_command_refuses_a_strangers_experiment_and_runs_nothing(train, tmp_path) -> None:
    (tmp_path / "theirs/experiment").mkdir(parents=True)
    evil = tmp_path / "theirs/experiment/evil.yaml"
    evil.write_text(EVIL_FILES["experiment/evil.yaml"][2])
    done = train("--config-dir", str(evil.parents[1]), "+experiment=evil", *TINY, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{evil} changes Hydra's own section" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "multirun").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../../etc",
        "a/b",
        "/abs",
        ".hidden",
        "..",
        "",
        "a b",
        "a\nb",
        "ü",
        "a\x00",
        BACKBONES,
        *sorted(NOT_RUNS),
    ],
)
def test_names_that_could_leave_the_folder_or_hide_runs(name) -> None:
    with pytest.raises(SettingsError, match="name of a study or a subset"):
        folder_name(name)
    for key in ("study", "subset"):
        content = {
            "subset": "mine",
            "finetune": {"steps": 1},
            "pretrain": {"composition": {"QCD": 1}},
            key: name,
        }
        with pytest.raises(SettingsError, match=r"name of a study or a subset|scratch"):
            from_config(content)


def test_names_that_stay() -> None:
    for name in ("paper", "qcd_res2p", "C=1e12", "a.b-c+d", "0"):
        assert folder_name(name) == name


@pytest.mark.slow
def test_no_override_makes_a_file_outside_of_multirun(train, tmp_path) -> None:
    for override in ("study=../../etc", "subset=.."):
        done = train(*TINY, override, "pretrain.composition={QCD:1}", check=False)
        assert done.returncode == 1
        assert "cannot be the name of a study or a subset" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert not (tmp_path.parents[1] / "etc").exists()


def test_metrics_do_not_follow_a_link_out_of_the_run(tmp_path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("mine\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").symlink_to(outside)
    line = MetricsLine("finetune", 5, 40, 1600, 1e9, "train", "raw", 2.25, None, 1e-3, 0.5)
    with pytest.raises(WriteError, match="symbolic link"):
        MetricsLog(run / "metrics.jsonl").append(line)
    MetricsLog(run / "metrics.jsonl").replace([])  # what every start does: the link itself makes way
    assert not (run / "metrics.jsonl").is_symlink()
    assert outside.read_text() == "mine\n"


SECRET = "hunter2"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"s3://AKIA:{SECRET}@bucket/jets", "s3://***@bucket/jets"),
        (f"https://{SECRET}@host/x and http://u:{SECRET}@h", "https://***@host/x and http://***@h"),
        (f"https://host/x?a=1&X-Amz-Signature={SECRET}&b=2", "https://host/x?a=1&X-Amz-Signature=***&b=2"),
        (f"https://host/x?access_token={SECRET}", "https://host/x?access_token=***"),
        ("a@b.c, data/store, s3://bucket/key=1, x@y:z", "a@b.c, data/store, s3://bucket/key=1, x@y:z"),
    ],
)
def test_masking(text, kept) -> None:
    assert masked(text) == kept


def test_config_yaml_masks_passwords_and_reads_back() -> None:
    settings = from_config({"finetune": {"steps": 1}, "data": {"dir": f"s3://AKIA:{SECRET}@bucket"}})
    assert SECRET not in to_yaml(settings)
    assert "AKIA" not in to_yaml(settings)
    assert "s3://***@bucket" in to_yaml(settings)
    import yaml

    again = from_config(yaml.safe_load(to_yaml(settings)))
    assert again.identity() == settings.identity()
    assert settings.data.dir == f"s3://AKIA:{SECRET}@bucket"


def test_the_environment_is_not_read_into_settings() -> None:
    for word in ("study=${oc.env:HOME}", "subset='a${oc.env:HOME,x}'", "+finetune.lr=${${study}:HOME}"):
        with pytest.raises(ConfigFileError, match=r"the command line: .* could copy a secret"):
            check_config_files([word], CONF)
    check_config_files(["hydra.run.dir=${oc.env:HOME}/runs", "study=${subset}"], CONF)  # where, not what
    config = OmegaConf.create({"study": "${oc.env:HOME}", "finetune": {"steps": 1}})
    with pytest.raises(ConfigFileError, match="the settings: study uses"):
        from_config(config)


@pytest.mark.slow
def test_no_secret_of_the_environment_or_the_command_line_is_written(train, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    train(*TINY, "tracking.wandb=offline", f"pretrain.library=s3://AKIA:{SECRET}@bucket/backbones")
    assert "s3://***@bucket/backbones" in next(tmp_path.rglob("config.yaml")).read_text()
    failed = train(*TINY, f"data.dir=s3://AKIA:{SECRET}@bucket/jets", "study=missing", check=False)
    assert "bucket/jets" in (next(tmp_path.rglob("failed.log"))).read_text()
    swept = train(*TINY, "-m", "seed=0,1", f"data.dir=s3://AKIA:{SECRET}@bucket", check=False)
    assert (failed.returncode, swept.returncode) == (1, 1)
    assert "multirun.yaml" in swept.stderr
    assert SECRET not in swept.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []

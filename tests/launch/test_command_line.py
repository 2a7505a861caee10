"""Mistakes on the command line of training: one line each, which leads to the right one, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from hydra_plugins.jetscale import GridSweeper
from jetscale.common.cli import told
from jetscale.common.config_safety import CONF
from jetscale.common.usage import SettingsError, UsageError
from jetscale.launch.command_line import check_command_line, explanation
from jetscale.launch.help import train_help
from jetscale.launch.hydra_setup import hydra_arguments, register
from jetscale.launch.jobs import Job, check_folders
from jetscale.training.settings import TrainSettings


def checked(*words: str) -> list[str]:
    register()  # as the command does before it looks at its words
    argv = hydra_arguments(words)
    check_command_line(argv, CONF)
    return argv


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--dry-run", "unknown flag '--dry-run'; did you mean --dry?"),
        ("--seed=3", "unknown flag '--seed=3'; did you mean seed=3?"),
        ("-x", "unknown flag '-x'; flags: --multirun, -m, --dry"),
        ("--config-dir", "argument --config-dir/-cd: expected one argument; see --help"),
        ("--config-dir nowhere", "--config-dir nowhere: no such folder"),
        ("hydra.launcher=joblib", "hydra.launcher=joblib: did you mean hydra/launcher=joblib?"),
        ("hydra.sweeper=grid", "hydra.sweeper=grid: did you mean hydra/sweeper=grid?"),
        ("wandb.mode=offline", "unknown key 'wandb.mode'; did you mean tracking.wandb=offline? (one of auto"),
        ("trainer.max_steps=5", "unknown key 'trainer.max_steps'; did you mean finetune.steps=5?"),
        ("trainer.devices=2", "unknown key 'trainer.devices'; did you mean device.devices?"),
        ("modl.dim=8", "unknown key 'modl.dim'; did you mean model.dim=8?"),
        ("+modl.dim=8", "unknown key 'modl.dim'; did you mean model.dim=8?"),
        ("lr=1e-3", "unknown key 'lr'; did you mean pretrain.lr, finetune.lr?"),
        ("finetune.learning_rate=1", "unknown key 'finetune.learning_rate'; did you mean finetune.lr=1?"),
        ("nonsense=1", "unknown key 'nonsense'; `python -m jetscale.train --help` lists all keys"),
        ("model={dim:9,dpth:3}", "unknown key 'model.dpth'; did you mean model.depth"),
        ("model=3", "model=3: a group of keys, set one of them, for example model.arch=VALUE"),
        ("~model.dim", "~model.dim: a key cannot be taken away"),
        ("finetune.steps=1e1", "finetune.steps=1e1: must be a whole number from 1 to 1000000000; write 10"),
        ("study=../out", "study=../out: cannot be the name of a study or a subset"),
        ("experiment=bsm_all", "experiment=bsm_all: did you mean +experiment=bsm_all?"),
        ("+budget=smoke", "+budget=smoke: did you mean budget=smoke?"),
        ("bsm_all", "'bsm_all' is not key=value; did you mean +experiment=bsm_all?"),
        ("seed", "'seed' is not key=value; see --help"),
        ("+experiment=bsm_al", "+experiment=bsm_al: no such choice; did you mean bsm_all?"),
        (
            "budget=huge",
            "budget=huge: no such choice; choices: laptop, laptop_tuned, paper, quickstart",
        ),
        ("+sweep=laptop", "+sweep=laptop: is a sweep of several runs; add -m, or --dry for its plan alone"),
        ("++sweep=laptop", "++sweep=laptop: is a sweep of several runs; add -m, or --dry for its plan alone"),
        ("-m +sweep=paper,laptop", "+sweep=paper,laptop: a sweep is one file"),
        ("seed=0,1", "seed=0,1: several values are a sweep; add -m"),
        ("-m seed=0,-1", "seed=-1: must be a whole number from 0"),
        ("-m model.dim=range(0,20,4)", "model.dim=0: must be a whole number from 1"),
        ("-m finetune.lr=interval(0,1)", "finetune.lr=interval(0,1): name the values of a sweep"),
        ("data.dir=a(b", "data.dir=a(b: cannot be read (no viable alternative at input 'a(b'); a text"),
        ("finetune.clip=nan", "finetune.clip=nan: must be a number above 0, or null"),
        ("pretrain.composition={QCD:1,QCD:2}", "{QCD:1,QCD:2}: one key is there twice"),
        ("finetune.lr={table:{8:3e-3,8.0:1e-2}}", "{8:3e-3,8.0:1e-2}: one key is there twice"),
        ("-m finetune={steps:8,steps:9},{steps:7}", "{steps:8,steps:9}: one key is there twice"),
        ("-m seed=range(3,0)", "seed=range(3,0): a sweep without a value"),
        ("-m seed=glob(*)", "seed=glob(*): glob(...) chooses among files; name the values instead"),
        ("-m +experiment=glob(top*)", "+experiment=glob(top*): no choice matches; choices: aligned_diverse"),
        ("-m seed=0,1 --cfg job", "-m and --cfg cannot go together; --cfg job shows the settings of one run"),
        ("--dry seed=0 --info", "-m and --info cannot go together"),
        ("--resolve", "--resolve goes with --cfg alone"),
        ("--cfg", "argument --cfg/-c: expected one argument"),
        ("--cfg jobs", "argument --cfg/-c: invalid choice: 'jobs'"),
        ("--experimental-rerun x", "--experimental-rerun is not needed"),
        ("study=2026_11", "study=2026_11: would become 202611; a text that looks like a number needs two"),
        ("-m subset=1e3,b", "subset=1e3,b: would become 1000.0"),
        ("data.dir=true", "data.dir=true: would become True"),
        ("subset=analysis", "subset=analysis: cannot be the name of a study or a subset"),
    ],
)
def test_a_mistake_leads_to_the_right_word(words, message) -> None:
    with pytest.raises(UsageError) as refused:
        checked(*words.split())
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        ('finetune.lr={table:{"8":1e-3}}', "finetune.lr={table:{8:1e-3}}"),
        ("pretrain.composition={'QCD': {'weight': 1}}", "pretrain.composition={QCD: {weight: 1}}"),
    ],
)
def test_keys_in_quotes_as_json_has_them(typed, right) -> None:
    with pytest.raises(UsageError) as refused:
        checked(typed)
    assert str(refused.value) == (
        f"{typed}: cannot be read; keys of a mapping stand without quotes: '{right}'"
    )
    checked(right, "subset=mine")


def test_right_ones_pass(tmp_path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nsubset: mine\n")
    for words in (
        "+experiment=bsm_all model.dim=256 -m seed=0,1,2,3,4",
        "-m +sweep=paper hydra/launcher=joblib hydra.launcher.n_jobs=2",
        "-m +experiment=qcd,bsm_all pretrain.composition.QCD=1,2 model.dim=range(8,64,8)",
        f"--config-dir {tmp_path} +experiment=mine study=${{subset}}-study finetune.lr={{table:{{8:1e-3}}}}",
        "+sweep=paper --cfg job --resolve",
        "+sweep=paper --dry",
        "+sweep=paper hydra.mode=MULTIRUN",
        "-m +experiment=glob(qcd*,exclude=*res*)",
        "pretrain.composition={} callbacks={}",
        "-m study=5 subset=1,2.5 tracking.project='2026_11'",
    ):
        checked(*words.split())


def test_a_file_with_the_name_of_a_shipped_one_is_refused(tmp_path) -> None:
    """Hydra would read the shipped one."""
    for name in ("experiment/qcd.yaml", "budget/smoke.yaml", "hydra/launcher/slurm.yaml"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("# @package _global_\n")
        with pytest.raises(UsageError) as refused:
            checked("--config-dir", str(tmp_path), "seed=1")
        assert str(refused.value) == (
            f"{tmp_path / name}: would not be read, since jetscale's {CONF / name} has the same name; rename "
            "yours"
        )
        (tmp_path / name).rename(tmp_path / name.replace(".yaml", "_of_mine.yaml"))
    checked("--config-dir", str(tmp_path), "budget=smoke_of_mine", "+experiment=qcd_of_mine")
    checked("--config-dir", str(CONF), "budget=smoke")  # the same files


def test_a_file_with_another_ending_is_named(tmp_path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yml").write_text("# @package _global_\nsubset: mine\n")
    for typed in ("+experiment=mine", "+experiment=mine.yml"):
        with pytest.raises(UsageError) as refused:
            checked("--config-dir", str(tmp_path), typed)
        assert str(refused.value) == (
            f"{typed}: {tmp_path}/experiment/mine.yml is not read, since its name must end in .yaml; "
            "rename it"
        )
    assert "|mine|" not in train_help(["--config-dir", str(tmp_path)], CONF)
    (tmp_path / "experiment/mine.yml").rename(tmp_path / "experiment/mine.yaml")
    assert "|mine|" in train_help(["--config-dir", str(tmp_path)], CONF)


def test_options_may_stand_anywhere_and_home_is_home(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert hydra_arguments(["--info", "seed=1"]) == ["--info", "all", "seed=1"]
    assert hydra_arguments(["seed=1", "-i", "config"]) == ["-i", "config", "seed=1"]
    words = ("seed=1", "--config-dir", "docs", "data.dir=~/jets", "-m")
    assert hydra_arguments(words) == ["-m", "--config-dir", "docs", "seed=1", "data.dir=/home/ada/jets"]


def test_what_hydra_says_becomes_one_line() -> None:
    error = ConfigCompositionException("Could not override 'hydra.run.x'.\nTo append to your config use +x")
    error.__cause__ = ConfigKeyError(
        "Key 'x' not in 'RunDir'\n    full_key: hydra.run.x\n    object_type=dict"
    )
    assert explanation(error) == "Could not override 'hydra.run.x'; Key 'x' not in 'RunDir'"
    error = ConfigCompositionException(
        "Could not override 'pretrain.composition.QCD'.\nTo append to your config use +x"
    )
    error.__cause__ = ConfigAttributeError(
        "Key 'QCD' is not in struct\n    full_key: x\n    object_type=dict"
    )
    assert explanation(error) == (
        "pretrain.composition.QCD: pretrain.composition is no mapping that has entries; give all of it, "
        "pretrain.composition={QCD: VALUE}"
    )
    missing = MissingConfigException("a\nb", "hydra/launcher/jobli", ["basic", "joblib"])
    assert explanation(missing) == "hydra/launcher=jobli: no such choice; did you mean joblib?"
    interpolation = ValueError("while resolving an interpolation")
    interpolation.__cause__ = SettingsError("the study")
    assert explanation(interpolation) == "the study"
    assert explanation(ZeroDivisionError("a fault of the program")) is None


def test_a_batch_of_a_sweep_is_a_whole_number() -> None:
    for size in (0, 1.5, True, "few"):
        with pytest.raises(UsageError, match=r"hydra\.sweeper\.max_batch_size=\S+: must be a whole number"):
            GridSweeper(size)  # type: ignore[arg-type]  # as a user may type it
    GridSweeper(3)


def test_a_file_in_the_place_of_the_runs_is_told(tmp_path) -> None:
    (tmp_path / "multirun").symlink_to(tmp_path / "unmounted")
    with pytest.raises(FileExistsError) as link:
        (tmp_path / "multirun").mkdir(exist_ok=True)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as file:
        (tmp_path / "file/smoke").mkdir(parents=True)
    for raised, path in ((link, "multirun"), (file, "file/smoke")):
        assert f"{path}: " in told(raised.value)
        assert "move away the file, or the link that leads nowhere" in told(raised.value)


def job(path: str, *overrides: str) -> Job:
    return Job(overrides, TrainSettings(), Path(path))


def test_jobs_of_a_sweep_have_folders_to_themselves() -> None:
    one, two = job("m/s/a", "seed=0", "data.dir=x"), job("m/s/a", "seed=0", "data.dir=y")
    with pytest.raises(UsageError, match=r"folder m/s/a: seed=0 data.dir=x and seed=0 data.dir=y"):
        check_folders([one, job("m/s/b"), two], Path("m/s"))
    with pytest.raises(UsageError, match=r"the job seed=0 data.dir=x is there twice"):
        check_folders([one, job("m/s/a", "seed=0", "data.dir=x")], Path("m/s"))
    with pytest.raises(UsageError, match=r"one study, but the job study=t would be in m/t, not in m/s"):
        check_folders([one, job("m/t/a/dim=8/seed=0/x=1", "study=t")], Path("m/s"))
    check_folders([one, job("m/s/b")], Path("m/s"))


REFUSED = {
    "study=a,b": "a sweep is one study, but the job budget=smoke study=a would be in multirun/a",
    "budget=smoke,quickstart": "a sweep is one study, but the job budget=smoke would be in multirun/smoke",
    "device.precision=auto,32-true": "two jobs would write the same folder multirun/smoke/scratch/dim=64/",
    "data.dir=a,b": "two jobs would write the same folder multirun/smoke/scratch/dim=64/seed=0: ",
    "subset=mine +experiment=qcd,bsm_all": "two jobs would write the same folder multirun/smoke/mine/dim=64",
    "seed=0,0": "the job budget=smoke seed=0 is there twice; name each value of a sweep once",
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_sweep_whose_jobs_collide_is_refused_before_it_starts(words, warm, tmp_path) -> None:
    budget = [] if words.startswith("budget") else ["budget=smoke"]
    done = warm.run("jetscale.train", ["-m", *budget, *words.split()], tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"jetscale.train: {REFUSED[words]}")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_wrong_key_is_refused_without_torch(tmp_path) -> None:
    script = (
        "import runpy, sys\n"
        "sys.argv = ['train', 'modl.dim=8']\n"
        "try:\n    runpy.run_module('jetscale.train', run_name='__main__')\n"
        "except SystemExit as stop:\n    print(stop.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "jetscale.train: unknown key 'modl.dim'; did you mean model.dim=8? False\n"

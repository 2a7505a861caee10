"""A launcher of the user's own module, through the real command line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from jetscale.common.config_safety import CONF, ConfigFileError, check_config_files
from jetscale.common.trust import trusted
from jetscale.launch.hydra_setup import register
from jetscale.launch.packs import Pack
from tests.runs import TINY, runs_under

TOY_LAB = Path(__file__).parent / "toy_lab"
SWEEP = (*TINY, "pretrain.steps=6", "finetune.steps=10", "-m", "seed=0,1")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A user's folder: the package ``toy_lab``, and a folder of configuration with a launcher in it."""
    (tmp_path / "toy_lab").symlink_to(TOY_LAB)
    launchers = tmp_path / "conf/hydra/launcher"
    launchers.mkdir(parents=True)
    (launchers / "mine.yaml").write_text("_target_: toy_lab.launcher.DiaryLauncher\ndiary: mine.txt\n")
    return tmp_path


def test_a_launcher_that_its_module_registers_runs_the_sweep(train, site: Path) -> None:
    train("--trust", "toy_lab.launcher", *SWEEP, "hydra/launcher=diary")
    diary = (site / "diary.txt").read_text().splitlines()
    assert [line.split()[:2] for line in diary] == [["0", "COMPLETED"], ["1", "COMPLETED"]]
    assert [line.split()[-1] for line in diary] == ["seed=0", "seed=1"]
    assert all((run / "done.json").exists() for run in runs_under(site))
    (runs_under(site)[1] / "done.json").unlink()  # the rest of the sweep is carried through as with any other
    train("--trust", "toy_lab.launcher", *SWEEP, "hydra/launcher=diary")
    assert (site / "diary.txt").read_text().splitlines()[2:] == [diary[1].replace("1 ", "0 ", 1)]


def test_help_lists_the_launchers_of_the_user(train, site: Path) -> None:
    assert "|diary|" not in train("--help").stdout
    shown = train("--trust", "toy_lab.launcher", "--config-dir", "conf", "--help").stdout
    assert "hydra/launcher=basic|diary|joblib|mine|perlmutter|slurm" in shown
    assert "model.arch=transformer  (one of transformer, deepsets, particlenet" in shown
    unknown = train("--trust", "no_lab", "--help", check=False)
    assert unknown.stderr.startswith("jetscale.train: --trust no_lab: cannot be imported")
    assert unknown.stderr.count("\n") == 1


def test_a_launcher_of_a_file_of_the_users_runs_with_trust_and_is_refused_without(train, site: Path) -> None:
    chosen = ("--config-dir", "conf", "hydra/launcher=mine")
    refused = train(*SWEEP, *chosen, check=False)
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "conf/hydra/launcher/mine.yaml: _target_='toy_lab.launcher.DiaryLauncher'" in refused.stderr
    assert "add --trust toy_lab to the command" in refused.stderr
    assert not (site / "multirun").exists()
    train("--trust", "toy_lab", *SWEEP, *chosen)
    assert (site / "mine.txt").read_text().count("COMPLETED") == 2


REFUSED = {
    "hydra/launcher/mine.yaml": {
        "diary: x\n": "needs the _target_ of a class that you trust",
        "_target_: hydra_plugins.jetscale.SlurmLauncher\nsetup: [ls]\n": "add --trust hydra_plugins.jetscale",
        "_target_: os.system\n": "add --trust os to the command",
        "_target_: toy_lab.launcher.DiaryLauncher\ndiary: {_target_: os.getcwd}\n": "add --trust os",
        "_target_: toy_lab.launcher.DiaryLauncher\ndiary: ${oc.env:HOME}\n": "could copy a secret",
        "# @package hydra.callbacks.x\n_target_: toy_lab.x\n": "fills hydra.launcher alone",
        "_target_: toy_lab.launcher.DiaryLauncher\nhydra: {run: {dir: /}}\n": "fills hydra.launcher alone",
        "_target_: toy_lab.x\ndefaults: [/experiment/x@hydra.callbacks]\n": "fills hydra.launcher alone",
    },
    "hydra/callbacks/mine.yaml": {"_target_: toy_lab.x\n": "changes Hydra's own section"},
    "experiment/mine.yaml": {
        "# @package _global_\nhydra: {launcher: {_target_: toy_lab.x}}\n": "changes Hydra's own section",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [(name, text, told) for name, texts in REFUSED.items() for text, told in texts.items()],
)
def test_trust_opens_the_launcher_and_nothing_else(name, text, message, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JETSCALE_TRUST", "toy_lab")
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigFileError) as refused:
        check_config_files(["--config-dir", str(tmp_path)], CONF)
    assert message in str(refused.value)
    assert name in str(refused.value)


def test_what_is_no_launcher_is_named(train, site: Path) -> None:
    words = {
        "hydra.launcher._target_=toy_lab.launcher.DiaryConfig": "must be a subclass of hydra.plugins",
        "+hydra.launcher.pages=3": "cannot be made: TypeError",
        "hydra.launcher._target_=os.getcwd": "add --trust os to the command",
    }
    for word, message in words.items():
        refused = train("--trust", "toy_lab.launcher", *SWEEP, "hydra/launcher=diary", word, check=False)
        assert refused.returncode == 1
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not (site / "multirun").exists()


def test_trust_travels_with_the_loader_and_the_pack(tmp_path, monkeypatch) -> None:
    """For worker processes that do not inherit the driver's environment."""
    monkeypatch.setenv("JETSCALE_TRUST", "json,csv")
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        sent = pickle.dumps(GlobalHydra.instance().config_loader())
    pack = Pack(tmp_path / "jobs.json", 1, 1.0)
    monkeypatch.setenv("JETSCALE_TRUST", "")
    pickle.loads(sent)
    assert trusted() == ["json", "csv"]
    assert pack.trust == pack.checkpoint().function.trust == ["json", "csv"]

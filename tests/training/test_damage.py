"""Damage to any file of a run: one finished and one interrupted run, really made; bits flip in copies."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from jetscale.analysis.tables.sources import local
from jetscale.common.config_safety import CONF
from jetscale.common.usage import UsageError
from jetscale.launch.hydra_setup import register
from jetscale.runs.blocks import BlockLog, BlocksError
from jetscale.runs.directory import DamagedRunError, RunDirectory, RunDirectoryError
from jetscale.runs.done import KEPT, DamagedRun, read_done, read_identity
from jetscale.runs.metrics import MetricsError, MetricsLog
from jetscale.simulate import SIMULATOR_VERSION
from jetscale.status.as_json import as_json
from jetscale.status.sweep import Watcher
from jetscale.training.callbacks.progress import PhaseProgress
from jetscale.training.checkpoint import CheckpointError, Checkpoints, read_checkpoint
from jetscale.training.outputs import Outputs
from jetscale.training.run import run
from jetscale.training.settings import TrainSettings, from_config
from tests.runs import TINY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # Lightning's, in this process
    pytest.mark.xdist_group("damage"),  # they share two runs
]

PLACE = "scratch/dim=8/seed=0"
FLIPS = 400


def settings(data: Path, *overrides: str) -> TrainSettings:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return from_config(compose("train", overrides=[*TINY, f"data.dir={data}", *overrides]))


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def runs(simulated_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``done`` and ``stopped``: the same run, finished, and dead just after its third checkpoint."""
    root = tmp_path_factory.mktemp("runs")
    run(settings(simulated_data), root / "done" / PLACE, "finetune.steps=40")
    original = PhaseProgress.on_train_batch_end

    def dying(self: PhaseProgress, trainer: Any, module: Any, *arguments: Any) -> None:
        original(self, trainer, module, *arguments)
        if module.step == 26:  # after the checkpoint of step 21 and a line and an evaluation beyond it
            raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PhaseProgress, "on_train_batch_end", dying)
        with pytest.raises(Killed):
            run(settings(simulated_data), root / "stopped" / PLACE)
    return root


@pytest.fixture
def finished(runs: Path, tmp_path: Path) -> Path:
    shutil.copytree(runs / "done", tmp_path / "done")
    return tmp_path / "done"


@pytest.fixture
def stopped(runs: Path, tmp_path: Path) -> Path:
    shutil.copytree(runs / "stopped", tmp_path / "stopped")
    return tmp_path / "stopped"


def flipped(files: list[Path], count: int) -> Iterator[Path]:
    """Yield each file with one bit of it flipped, `count` in all, evenly over the files."""
    rng = np.random.default_rng(13)
    for number in range(count):
        path = files[number % len(files)]
        whole = path.read_bytes()
        content = bytearray(whole)
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        yield path
        path.write_bytes(whole)


def test_every_flip_in_a_finished_run_is_refused_with_the_files_name(finished: Path) -> None:
    folder = finished / PLACE
    files = [folder / name for name in (*KEPT, "done.json", "identity.json")]
    assert read_done(folder) is not None
    for path in flipped(files, FLIPS):
        with pytest.raises(DamagedRun, match=path.name.replace(".", r"\.")):
            read_done(folder)


def test_every_reader_refuses(finished: Path, simulated_data: Path) -> None:
    folder, chosen = finished / PLACE, settings(simulated_data)
    for path in flipped([folder / name for name in (*KEPT, "done.json")], 24):
        with pytest.raises(UsageError, match=path.name):
            local.load(finished)
        with pytest.raises(DamagedRunError, match=rf"{path.name}.*put back an undamaged copy"):
            run(chosen, folder)
        (shown,) = as_json(Watcher(finished).look())["runs"]
        assert shown["state"] == "failed"
        assert path.name in shown["error"]
    assert local.load(finished).warnings == []


def whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "metrics.jsonl cut off": lambda run: (run / "metrics.jsonl").write_bytes(
        b"".join(whole_lines(run / "metrics.jsonl")[:-2])
    ),
    "metrics.jsonl lacks a line": lambda run: (run / "metrics.jsonl").write_bytes(
        b"".join(whole_lines(run / "metrics.jsonl")[1:])
    ),
    "metrics.jsonl deleted": lambda run: (run / "metrics.jsonl").unlink(),
    "test_blocks.parquet deleted": lambda run: (run / "test_blocks.parquet").unlink(),
    "config.yaml emptied": lambda run: (run / "config.yaml").write_bytes(b""),
    "config.yaml deleted": lambda run: (run / "config.yaml").unlink(),
    "final.pt deleted": lambda run: (run / "checkpoints/final.pt").unlink(),
    "done.json misspelt": lambda run: (run / "done.json").write_text(
        (run / "done.json").read_text().replace('"n_params"', '"n_parms"')
    ),
    "done.json emptied": lambda run: (run / "done.json").write_bytes(b""),
    "done.json without checksum": lambda run: (run / "done.json").write_text(
        json.dumps(
            {
                key: value
                for key, value in json.loads((run / "done.json").read_text()).items()
                if key not in ("format", "files", "checksum")
            }
        )
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_cut_off_deleted_or_misspelt_is_refused(finished: Path, damage: str) -> None:
    DAMAGES[damage](finished / PLACE)
    name = damage.split()[0]
    with pytest.raises(UsageError, match=name):
        local.load(finished)
    (shown,) = as_json(Watcher(finished).look())["runs"]
    assert (shown["state"], name in shown["error"]) == ("failed", True)


def test_blocks_of_another_run_are_refused(finished: Path, stopped: Path) -> None:
    shutil.copy(stopped / PLACE / "test_blocks.parquet", finished / PLACE / "test_blocks.parquet")
    with pytest.raises(UsageError, match=r"test_blocks\.parquet is damaged"):
        local.load(finished)


def test_runs_of_an_earlier_version_are_read_with_one_warning(finished: Path) -> None:
    folder = finished / PLACE
    DAMAGES["done.json without checksum"](folder)
    (folder / "identity.json").unlink()
    (warning,) = local.load(finished).warnings
    assert "1 runs, such as scratch/dim=8/seed=0, are of an earlier version" in warning
    assert "earlier version" in " ".join(as_json(Watcher(finished).look())["notes"])
    blocks = BlockLog(folder / "test_blocks.parquet")
    blocks._write(blocks._table.slice(0, len(blocks._table) - 40))  # sums are compared all the same
    with pytest.raises(UsageError, match=r"test_blocks\.parquet is not of this run, or damaged: it"):
        local.load(finished)


def test_a_checkpoint_of_another_run_is_not_continued(stopped: Path, simulated_data: Path) -> None:
    """Copied into a folder without identity.json, it passed for a run of whatever settings came next."""
    folder = stopped / PLACE
    (folder / "identity.json").unlink()
    with pytest.raises(CheckpointError, match=r"finetune\.last\.pt is of a run with other settings"):
        run(settings(simulated_data, "finetune.lr=3e-3"), folder, "finetune.lr=0.003")
    (folder / "identity.json").unlink()
    checkpoints = Checkpoints(folder / "checkpoints", "finetune")
    state = read_checkpoint(folder / "checkpoints/finetune.last.pt")
    assert (state["precision"], state["identity"]) == ("32-true", settings(simulated_data).identity())
    checkpoints.save({**state, "precision": "bf16-mixed"}, state["step"])  # as a GPU writes it
    with pytest.raises(
        CheckpointError, match=r"made with the precision bf16-mixed, and .*auto means 32-true"
    ):
        run(settings(simulated_data), folder, "finetune.steps=40")


def test_nothing_in_a_run_directory_is_resolved(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hidden")
    folder = finished / PLACE
    done = json.loads((folder / "done.json").read_text())
    for name in ("format", "files", "checksum", "subset"):
        del done[name]
    (folder / "done.json").write_text(json.dumps(done))
    (folder / "identity.json").unlink()
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("subset: scratch", "subset: ${oc.env:A_SECRET}"))
    losses = local.load(finished)
    assert set(losses.frame["subset"]) == {"${oc.env:A_SECRET}"}
    assert "hidden" not in losses.frame.to_csv()


def resume(folder: Path, identity: str) -> tuple[int, bytes, Any]:
    """What a start reads of an interrupted run; its files are rewound to the checkpoint."""
    RunDirectory(folder, identity)
    assert read_identity(folder) == identity
    checkpoints = Checkpoints(folder / "checkpoints", "finetune")
    state = checkpoints.load()
    assert state is not None
    metrics, blocks = MetricsLog(folder / "metrics.jsonl"), BlockLog(folder / "test_blocks.parquet")
    outputs = Outputs("finetune", metrics, blocks, checkpoints, wandb=None)  # type: ignore[arg-type]  # not told
    outputs.rewind(state["step"], frozenset({1, 10, 20, 30, 40}) - {1}, state["metrics"])
    return state["step"], metrics.path.read_bytes(), blocks._table


def attempt(folder: Path, identity: str) -> tuple[tuple[int, bytes, Any] | None, str]:
    """What `resume` gives, or what it is refused with."""
    try:
        return resume(folder, identity), ""
    except (DamagedRun, CheckpointError, MetricsError, BlocksError) as error:
        return None, str(error)


def test_every_flip_in_an_interrupted_run_is_refused_or_harmless(
    stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = stopped / PLACE
    identity = read_identity(folder)
    assert identity is not None
    names = ("config.yaml", "identity.json", "metrics.jsonl", "test_blocks.parquet")
    names += ("checkpoints/finetune.last.pt", "checkpoints/finetune.last.json")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    step, lines, blocks = resume(folder, identity)
    assert step == 21
    refused = 0
    for path, content in before.items():
        path.write_bytes(content)
    for path in flipped([folder / name for name in names], FLIPS):
        caplog.clear()
        found, problem = attempt(folder, identity)
        if found is None:
            assert path.name in problem
            refused += 1
        else:
            if found[0] == step:  # beyond the checkpoint, where the run writes it anew
                assert path.name == "metrics.jsonl"
                assert found[1] == lines
                assert found[2].equals(blocks)
            else:  # the checkpoint before it
                assert path.stem == "finetune.last"
                assert path.name in caplog.text
                refused += 1
        for other, content in before.items():
            if other != path:
                other.write_bytes(content)
    assert refused >= 0.95 * FLIPS


def test_the_last_digit_of_a_loss_changed_before_a_resume_is_found(stopped: Path) -> None:
    metrics = stopped / PLACE / "metrics.jsonl"
    entries = [json.loads(line) for line in metrics.read_text().splitlines()]
    log = MetricsLog(metrics)
    for entry in entries:
        del entry["check"]
    entries[0]["loss"] = float(f"{entries[0]['loss']:.12f}1")
    log.replace(entries)  # with checksums that fit, as if somebody had edited it well
    identity = read_identity(stopped / PLACE)
    assert identity is not None
    with pytest.raises(MetricsError, match=r"metrics\.jsonl is damaged: its lines up to step 21 are not"):
        resume(stopped / PLACE, identity)


def test_a_flipped_checkpoint_without_its_json_is_refused(stopped: Path) -> None:
    folder = stopped / PLACE / "checkpoints"
    for meta in folder.glob("*.json"):
        meta.unlink()
    for path in flipped([folder / "finetune.last.pt"], 100):
        with pytest.raises(CheckpointError, match=r"finetune\.last\.pt is damaged"):
            read_checkpoint(path)
    assert read_checkpoint(folder / "finetune.last.pt")["step"] == 21


def test_a_run_names_what_made_its_jets(finished: Path) -> None:
    done = read_done(finished / PLACE)
    assert done is not None
    made = {split: jets.made_by for split, jets in (done.record.jets_from or {}).items()}
    maker = f"jetscale's simulator, version {SIMULATOR_VERSION} without multiparton interactions"
    assert made["finetune/train"] == maker
    assert len(set(made.values())) == 1
    assert local.load(finished).origins[PLACE].jets == made


def test_a_run_on_other_jets_is_not_done(
    finished: Path, simulated_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, other = finished / PLACE, tmp_path / "other"
    shutil.copytree(simulated_data / "JetClass", other / "JetClass")
    assert run(settings(other), folder).final  # the same files at another place are the same jets
    train = sorted((other / "JetClass").rglob("*_000.root"))[0]
    content = bytearray(train.read_bytes())
    content[len(content) // 2] ^= 1  # the same size
    train.write_bytes(content)
    with pytest.raises(RunDirectoryError, match=rf"on other finetune/train jets: .*{other}.*study=NAME"):
        run(settings(other), folder)
    caplog.set_level(logging.INFO)
    assert run(settings(tmp_path / "gone"), folder).variant == "finetune.steps=40"
    assert "jets are not in" in caplog.text
    assert not list(other.glob("store*"))  # nothing was packed to find that out

"""Faults injected for real: full and read-only disks, damaged files, a clock that jumps, bad inputs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir

from jetscale.common.config_safety import CONF
from jetscale.common.files import WriteError, write_json
from jetscale.launch.hydra_setup import register
from jetscale.runs.blocks import BlockLog, BlocksError
from jetscale.runs.layout import N_BLOCKS
from jetscale.runs.metrics import MetricsError, MetricsLine, MetricsLog
from jetscale.training.checkpoint import CheckpointError, Checkpoints, read_checkpoint
from jetscale.training.module import NonFiniteLoss
from jetscale.training.run import run
from jetscale.training.settings import from_config
from tests.disks import Disk
from tests.jets.stores import reseal
from tests.runs import TINY, killed_after, quiet_environment, same_run
from tests.warm import WarmServer

pytestmark = [
    pytest.mark.filterwarnings("default"),  # Lightning's, in this process
    pytest.mark.xdist_group("faults"),  # they share a run that was interrupted
]

LINE = MetricsLine("finetune", 5, 40, 1600, 1e9, "train", "raw", 2.25, None, 1e-3, 0.5)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk", kib=320)
    yield made
    made.close()


def go(simulated_data: Path, directory: Path, *overrides: str) -> dict[str, Any]:
    """One run in this process, with everything that `jetscale.train` does but the command line."""
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=[*TINY, f"data.dir={simulated_data}", *overrides])
    return run(from_config(config), directory)


def left_behind(where: Path) -> list[str]:
    """Half files: temporary names, and JSON, checkpoints and Parquet that do not open."""
    bad = [str(path) for path in where.rglob("*.part*")]
    for path in where.rglob("*"):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".pt":
                read_checkpoint(path)
            elif path.suffix == ".parquet":
                pq.read_table(path)
        except (ValueError, CheckpointError, pa.ArrowException, OSError) as error:
            bad.append(f"{path}: {error}")
    return bad


def writers(where: Path) -> dict[str, Callable[[], Any]]:
    jets, sums = np.ones(N_BLOCKS, np.int64), np.random.default_rng(0).random(N_BLOCKS)
    blocks = BlockLog(where / "test_blocks.parquet")
    metrics = MetricsLog(where / "metrics.jsonl")

    def a_page_of_lines() -> None:  # the page that the last line is on may have room
        for _ in range(40):
            metrics.append(LINE)

    return {
        "metrics.jsonl": a_page_of_lines,
        "test_blocks.parquet": lambda: blocks.append("finetune", 10, "raw", jets, sums),
        "finetune.last.pt": lambda: Checkpoints(where, "finetune").save({"step": 3, "bytes": b"x" * 9000}, 3),
        "done.json": lambda: write_json(where / "done.json", {"loss": 1.0}),
    }


@pytest.mark.parametrize("name", ["metrics.jsonl", "test_blocks.parquet", "finetune.last.pt", "done.json"])
def test_a_full_disk_is_named_and_leaves_what_was_there(disk, name) -> None:
    for write in writers(disk.path).values():
        write()
    before = (disk.path / name).read_bytes()
    filler = disk.fill()
    message = rf"disk/{name} cannot be written \(No space left on device\): free some space.*same command"
    with pytest.raises(WriteError, match=re.compile(message)):
        writers(disk.path)[name]()
    assert left_behind(disk.path) == []
    if name == "finetune.last.pt":
        assert Checkpoints(disk.path, "finetune").load()["step"] == 3
    elif name == "metrics.jsonl":
        assert (disk.path / name).read_bytes().startswith(before)
    else:
        assert (disk.path / name).read_bytes() == before
    filler.unlink()
    writers(disk.path)[name]()
    assert left_behind(disk.path) == []


@pytest.mark.slow
def test_a_disk_that_fills_up_while_training_costs_nothing(simulated_data, disk, tmp_path) -> None:
    """Larger and larger disks: each start gets further, says what to do, and leaves nothing half."""
    overrides = ("+experiment=qcd", "data.repeat=true", "pretrain.library={0}/backbones")
    go(simulated_data, tmp_path / "whole", *(item.format(tmp_path) for item in overrides))
    stopped = []
    for kib in range(16, 2000, 28):
        disk.resize(kib)
        try:
            go(simulated_data, disk.path / "run", *(item.format(disk.path) for item in overrides))
            break
        except WriteError as error:
            stopped.append(str(error))
        assert left_behind(disk.path) == []
    same_run(disk.path / "run", tmp_path / "whole")
    said = " cannot be written (No space left on device): free some space"
    assert all(said in message for message in stopped)
    assert len({Path(message.partition(said)[0]).name for message in stopped}) >= 3


@pytest.mark.slow
def test_a_read_only_place_is_an_error_before_training(simulated_data, disk, train, tmp_path) -> None:
    go(simulated_data, disk.path / "multirun/other")
    disk.read_only(True)
    with pytest.raises(
        WriteError, match=r"new/run/.*Read-only file system\): mount it for writing, or choose"
    ):
        go(simulated_data, disk.path / "new/run")
    with pytest.raises(WriteError, match=r"backbones/.*Read-only file system"):
        go(simulated_data, tmp_path / "run", "+experiment=qcd", f"pretrain.library={disk.path}/backbones")
    done = train(*TINY, f"hydra.run.dir={disk.path}/multirun/new", check=False)  # Hydra's own folder
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr
    assert f"{disk.path}/multirun/new" in done.stderr
    disk.read_only(False)


@pytest.mark.slow
def test_metrics_that_cannot_be_written_are_an_error_before_training(simulated_data, tmp_path) -> None:
    (tmp_path / "run" / "metrics.jsonl").mkdir(parents=True)
    with pytest.raises(WriteError, match=r"run/metrics.jsonl cannot be written \(Is a directory\)"):
        go(simulated_data, tmp_path / "run")


LONG = ("+experiment=qcd", "data.repeat=true", "pretrain.steps=16", "finetune.steps=90")


@pytest.fixture(scope="module")
def interrupted(
    simulated_data: Path, warm: WarmServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A run killed in the middle of fine-tuning, and the same run undisturbed."""
    root = tmp_path_factory.mktemp("interrupted")
    common = [f"data.dir={simulated_data}", *TINY, *LONG, f"pretrain.library={root}/backbones"]
    killed_after(warm, 45, [*common, f"hydra.run.dir={root}/run"], root / "none", root / "run")
    arguments = [*common, f"hydra.run.dir={root}/whole"]
    assert warm.start("jetscale.train", arguments, root, quiet_environment()).wait() == 0
    return root / "run", root / "whole"


@pytest.fixture
def resume(interrupted, simulated_data, tmp_path) -> Callable[[], dict[str, Any]]:
    """A copy of the interrupted run at ``tmp_path/run``, and a call that goes on with it."""
    shutil.copytree(interrupted[0], tmp_path / "run")
    shutil.copytree(interrupted[0].parent / "backbones", tmp_path / "backbones")
    return lambda: go(simulated_data, tmp_path / "run", *LONG, f"pretrain.library={tmp_path}/backbones")


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["checkpoint", "its checksum file", "nothing"])
def test_a_damaged_checkpoint_costs_no_more_than_time(resume, interrupted, tmp_path, damaged, caplog) -> None:
    last = tmp_path / "run/checkpoints/finetune.last.pt"
    if damaged == "checkpoint":
        content = bytearray(last.read_bytes())
        content[len(content) // 2] ^= 1
        last.write_bytes(content)
    elif damaged == "its checksum file":
        last.with_suffix(".json").write_bytes(b"\0" * 40)
    resume()
    assert ("finetune.last" in caplog.text and "is damaged" in caplog.text) == (damaged != "nothing")
    same_run(tmp_path / "run", interrupted[1])


@pytest.mark.slow
def test_damaged_metrics_are_an_error_that_names_the_line(resume, interrupted, tmp_path) -> None:
    metrics = tmp_path / "run/metrics.jsonl"
    whole = metrics.read_bytes()
    lines = whole.split(b"\n")
    for garbage in (b"\0" * 60, b'{"phase": "finetune"', b"[1]", b"\xff\xfe", b'{"phase": 1, "step": 2}'):
        metrics.write_bytes(b"\n".join([*lines[:4], garbage, *lines[5:]]))
        with pytest.raises(MetricsError, match=r"run/metrics.jsonl: line 5 is damaged.*undamaged copy.*anew"):
            resume()
    tests = [number for number, line in enumerate(lines) if b'"test"' in line]
    metrics.write_bytes(b"\n".join(line for number, line in enumerate(lines) if number != tests[0]))
    with pytest.raises(MetricsError, match="lacks the evaluation after step"):
        resume()
    metrics.write_bytes(whole)
    resume()
    same_run(tmp_path / "run", interrupted[1])


@pytest.mark.slow
def test_damaged_or_missing_block_losses_are_never_lost_silently(resume, interrupted, tmp_path) -> None:
    blocks = tmp_path / "run/test_blocks.parquet"
    whole = blocks.read_bytes()
    blocks.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BlocksError, match=r"test_blocks.parquet is damaged .*undamaged copy.*anew"):
        resume()
    blocks.unlink()
    with pytest.raises(BlocksError, match=r"test_blocks.parquet lacks the evaluation after step \d+, .*anew"):
        resume()
    blocks.write_bytes(whole)
    resume()
    same_run(tmp_path / "run", interrupted[1])


@pytest.mark.slow
def test_a_damaged_backbone_is_named_and_pretrained_anew_on_request(
    simulated_data, interrupted, tmp_path
) -> None:
    shutil.copytree(interrupted[0].parent / "backbones", tmp_path / "backbones")
    (weights,) = tmp_path.glob("backbones/*/checkpoints/final.pt")
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    overrides = (*LONG, f"pretrain.library={tmp_path}/backbones")
    with pytest.raises(
        CheckpointError, match=r"final.pt is damaged.*remove .*/backbones/qcd-\S+ to pretrain"
    ):
        go(simulated_data, tmp_path / "run", *overrides)
    assert not (tmp_path / "run/metrics.jsonl").exists()
    shutil.rmtree(weights.parents[1])
    go(simulated_data, tmp_path / "run", *overrides)
    same_run(tmp_path / "run", interrupted[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", r"the loss of step \d+ is nan, on the jets at positions"),
        ("test", r"the test loss .* is nan, from"),
    ],
)
def test_inputs_that_are_no_numbers_stop_the_run(simulated_data, tmp_path, split, message) -> None:
    go(simulated_data, tmp_path / "first")  # packs the store
    shutil.copytree(simulated_data / "store", tmp_path / "store")
    for part in (tmp_path / "store").glob(f"jetclass_{split}_*/part_*.arrow"):
        content = part.read_bytes()
        with pa.memory_map(str(part)) as stream:
            x = pa.ipc.open_file(stream).get_batch(0).column("x").values.values.buffers()[1]
            spoiled = x.to_pybytes()
        nan = np.frombuffer(spoiled, np.float16).copy()
        nan[: len(nan) // 2] = np.nan
        assert content.count(spoiled) == 1
        part.write_bytes(content.replace(spoiled, nan.tobytes()))
        reseal(part.parent)
    with pytest.raises(NonFiniteLoss, match=re.compile(message + ".*prepare check=true", re.DOTALL)):
        go(simulated_data, tmp_path / "run", f"data.store={tmp_path}/store")
    failure = json.loads((tmp_path / "run/failed.json").read_text())
    assert failure["error"] == "NonFiniteLoss"


@pytest.mark.slow
def test_a_clock_that_jumps_back_changes_nothing(simulated_data, interrupted, tmp_path) -> None:
    """An hour back in the middle of the run (libfaketime), wall clock only."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed (Debian package faketime)")
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    environment = {
        **quiet_environment(), "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jetscale.train", f"data.dir={simulated_data}", *TINY, *LONG,
        f"pretrain.library={interrupted[0].parent}/backbones", f"hydra.run.dir={tmp_path}/run",
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        while not (tmp_path / "run/test_blocks.parquet").exists() and process.poll() is None:
            time.sleep(0.005)
        clock.write_text("-3600\n")
        _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    stamps = re.findall(r"^\[(\S+ \S+?),", (tmp_path / "run/train.log").read_text(), re.MULTILINE)
    assert stamps[-1] < stamps[0]  # it did jump
    same_run(tmp_path / "run", interrupted[1])
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if line["phase"] == "finetune"]
    assert seconds == sorted(seconds)
    assert 0 <= seconds[0] <= seconds[-1] < 600

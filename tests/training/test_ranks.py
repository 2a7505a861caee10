"""Several processes, one run, over gloo: started as srun starts them (by torchrun: test_runs.py)."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from jetscale.common.usage import SettingsError
from jetscale.training.placement import Placement, placement
from jetscale.training.ranks import gpus_of, join, trainer_devices
from jetscale.training.settings import DeviceSettings, from_config
from tests.runs import TINY, metrics_of, quiet_environment, same_run, steps_done
from tests.warm import WarmProcess, WarmServer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_srun_sets(rank: int, world: int, port: int, nodes: int = 1) -> dict[str, str]:
    """The variables of task `rank` of a step of `world` tasks, as Slurm 22.05 sets them."""
    tasks = world // nodes
    return {
        "SLURM_JOB_ID": "71", "SLURM_NTASKS": str(world), "SLURM_JOB_NODELIST": "localhost",
        "SLURM_STEP_ID": "3",
        "SLURM_STEP_NUM_TASKS": str(world), "SLURM_STEP_TASKS_PER_NODE": f"{tasks}(x{nodes})",
        "SLURM_STEP_NODELIST": "localhost", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % tasks),
        "SLURM_NODEID": str(rank // tasks), "MASTER_PORT": str(port),
    }  # fmt: skip


Start = Callable[..., list[WarmProcess]]


@pytest.fixture
def start(simulated_data: Path, warm: WarmServer, tmp_path: Path) -> Iterator[Start]:
    """Start the processes of one run by hand, with the variables that srun sets."""
    started: list[WarmProcess] = []

    def call(*arguments: str, world: int = 2, nodes: int = 1) -> list[WarmProcess]:
        port = free_port()
        words = [
            f"data.dir={simulated_data}", *TINY, f"device.devices={world // nodes}",
            f"device.num_nodes={nodes}", "device.accelerator=cpu", *arguments,
        ]  # fmt: skip
        processes = [
            warm.start(
                "jetscale.train", words, tmp_path,
                {**quiet_environment(), **as_srun_sets(rank, world, port, nodes)},
            )
            for rank in range(world)
        ]  # fmt: skip
        started.extend(processes)
        return processes

    yield call
    for process in started:
        process.kill()
        process.wait()


def ranks_of(warm: WarmServer, program: Path, world: int, *arguments: str) -> list[WarmProcess]:
    """The tasks of a step that runs `program`."""
    port = free_port()
    environments = [quiet_environment() | as_srun_sets(rank, world, port) for rank in range(world)]
    return [warm.start(str(program), arguments, program.parent, each) for each in environments]


def finish(processes: list[WarmProcess]) -> None:
    errors = [process.communicate(timeout=280)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(errors)


def test_a_plain_process_is_alone_whatever_the_job_says() -> None:
    batch_script = {"SLURM_JOB_ID": "9", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    assert placement({}) == placement(batch_script) == Placement()
    one_task = {**batch_script, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "1"}
    assert placement(one_task) == Placement()


def test_srun_step_over_nodes() -> None:
    environment = {
        "SLURM_JOB_ID": "71", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_NTASKS": "99",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_STEP_NODELIST": "gpu[07-08]",
        "SLURM_JOB_NODELIST": "gpu[01-08]",
        "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    }  # fmt: skip
    here = placement(environment)
    assert (here.world, here.rank, here.node, here.local) == (
        8,
        3,
        1,
        1,
    )  # cyclic: ranks alternate between nodes
    assert (here.per_node, here.address, here.port) == ((4, 4), "gpu07", 15071)
    assert placement({**environment, "SLURM_STEP_ID": "1"}).port != here.port
    assert placement({**environment, "MASTER_ADDR": "head", "MASTER_PORT": "5"}).address == "head"


def test_torchrun_inside_srun_is_torchrun() -> None:
    environment = {
        **as_srun_sets(1, 2, 0), "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4",
        "GROUP_RANK": "1",
    }  # fmt: skip
    here = placement(environment)
    assert (here.launcher, here.rank, here.local, here.node, here.per_node) == ("torchrun", 5, 1, 1, (4, 4))


@pytest.mark.parametrize(
    ("tasks", "devices", "nodes"),
    [("3,1", 2, 2), ("2(x2)", 4, 1), ("4", 2, 2), ("4", 2, 1), ("2,1(x2)", 2, 2)],
)
def test_other_numbers_than_were_started_are_named(monkeypatch, tasks, devices, nodes) -> None:
    for name, value in {**as_srun_sets(0, 4, 1), "SLURM_STEP_TASKS_PER_NODE": tasks}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        SettingsError, match=f"device.devices={devices} device.num_nodes={nodes}.*--ntasks-per-node"
    ):
        join(DeviceSettings(devices=devices, num_nodes=nodes))


def test_what_processes_on_gpus_talk_over() -> None:
    """NCCL where each has a GPU to itself, gloo where they share: NCCL refuses two processes on one."""
    two = Placement(launcher="torchrun", world=2, local=1, per_node=(2,))
    assert gpus_of(two, 2) == gpus_of(two, 8) == ("nccl", [0, 1])
    assert gpus_of(two, 1) == ("gloo", [0, 0])
    assert gpus_of(Placement(world=4, per_node=(4,)), 3) == ("gloo", [0, 1, 2, 0])
    nodes = Placement(launcher="srun", world=4, local=1, per_node=(2, 2))
    assert gpus_of(nodes, 2) == ("nccl", [0, 1])
    with pytest.raises(SettingsError, match=r"process 1 of its node sees 1 GPUs, .* 2 nodes.* all 2 GPUs"):
        gpus_of(nodes, 1)


def test_lightning_takes_processes_that_share_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with two processes in place of a GPU with two: Lightning's `devices` would refuse them."""
    for name, value in as_srun_sets(1, 2, free_port()).items():
        monkeypatch.setenv(name, value)
    two = DeviceSettings(devices=2)
    assert trainer_devices(two) == {"devices": 2, "strategy": "auto"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert trainer_devices(two) == {"devices": 2, "strategy": "auto"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    shared = trainer_devices(two)
    assert shared["devices"] == 1
    assert shared["strategy"].parallel_devices == [torch.device("cuda", 0)] * 2
    monkeypatch.undo()
    monkeypatch.setattr(rank_zero_only, "rank", 0)  # which the Trainer sets for the whole process
    for name, value in as_srun_sets(1, 2, free_port()).items():
        monkeypatch.setenv(name, value)
    shared["strategy"].parallel_devices = [torch.device("cpu")] * 2
    trainer = lightning.Trainer(**shared, plugins=[placement()], logger=False, enable_progress_bar=False)
    assert trainer.strategy is shared["strategy"]
    assert (trainer.world_size, trainer.global_rank, trainer.local_rank) == (2, 1, 1)
    assert trainer.strategy.root_device == torch.device("cpu")


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_a_batch_that_cannot_be_shared_is_an_error_before_the_start(phase) -> None:
    content = {
        "subset": "mine", "pretrain": {"composition": {"QCD": 1}, "steps": 1}, "finetune": {"steps": 1},
        "device": {"devices": 2, "num_nodes": 3},
    }  # fmt: skip
    for name in ("pretrain", "finetune"):
        content[name]["batch_size"] = 128 if name == phase else 12
    with pytest.raises(
        SettingsError, match=rf"{phase}.batch_size=128 .*device.devices=2.*multiple of 6.*132"
    ):
        from_config(content)


@pytest.mark.slow
def test_any_rank_and_a_refused_claim_are_the_same_on_all_ranks(warm, tmp_path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from jetscale.runs.directory import RunDirectory, RunBusy\n"
        "from jetscale.training import ranks\n"
        "from jetscale.training.settings import DeviceSettings\n"
        "here = ranks.join(DeviceSettings(devices=3, accelerator='cpu'))\n"
        "votes = [ranks.any_rank(here.rank == k) for k in range(4)]\n"
        "try:\n"
        "    with ranks.first_rank_holds(RunDirectory(Path(sys.argv[1]), 'x').claim):\n"
        "        said = 'held'\n"
        "except RunBusy:\n"
        "    said = 'busy'\n"
        "if here.rank == 0: print('ready', flush=True)\n"
        "with ranks.first_rank_holds(RunDirectory(Path(sys.argv[1]), 'x').claim, wait=True):\n"
        "    print(here.rank, votes, said, 'then held')\n"
    )
    from jetscale.runs.directory import RunDirectory

    holder = RunDirectory(tmp_path / "run", "x").claim()
    holder.__enter__()
    processes = ranks_of(warm, program, 3, str(tmp_path / "run"))
    while processes[0].printed("stdout") != "ready\n":
        assert processes[0].poll() is None, processes[0].printed("stderr")
        time.sleep(0.01)
    holder.__exit__(None, None, None)
    finish(processes)
    lines = [process.printed("stdout").splitlines()[-1] for process in processes]
    assert lines == [f"{rank} [True, True, True, False] busy then held" for rank in range(3)]


@pytest.mark.slow
def test_srun_and_nodes_give_the_curve_of_one_process(train, start, tmp_path) -> None:
    uneven = (
        "+experiment=qcd",
        "data.repeat=true",
        "eval.jets=5",
        "eval.batch_size=4",
        "pretrain.batch_size=12",
        "finetune.batch_size=12",
    )
    train(*TINY, *uneven, f"hydra.run.dir={tmp_path}/one", "pretrain.library=backbones/one")
    runs = {"three": (3, 1), "nodes": (2, 2)}  # of three ranks one has no test jets
    for name, (world, nodes) in runs.items():
        finish(
            start(
                *uneven,
                f"hydra.run.dir={name}",
                f"pretrain.library=backbones/{name}",
                world=world,
                nodes=nodes,
            )
        )
        one, many = metrics_of(tmp_path / "one"), metrics_of(tmp_path / name)
        assert len(one) == len(many)
        for ours, theirs in zip(one, many, strict=True):
            assert theirs["loss"] == pytest.approx(ours["loss"], rel=2e-4)
            assert theirs["accuracy"] == ours["accuracy"]
            assert {key: theirs[key] for key in ("step", "jets", "constituents", "split")} == {
                key: ours[key] for key in ("step", "jets", "constituents", "split")
            }


@pytest.mark.slow
def test_processes_that_share_a_device_give_the_curve_of_one(train, warm, simulated_data, tmp_path) -> None:
    """As two processes on one GPU, here on the CPU: Lightning is given the device twice."""
    program = tmp_path / "program.py"
    program.write_text(
        "import torch\n"
        "from lightning.pytorch.strategies import DDPStrategy\n"
        "from jetscale import train\n"
        "from jetscale.training import ranks\n"
        "def shared(device):\n"
        "    return {'devices': 1, 'strategy': DDPStrategy(parallel_devices=[torch.device('cpu')] * 2)}\n"
        "ranks.trainer_devices = shared\n"
        "train._run()\n"
    )
    words = (*TINY, f"data.dir={simulated_data}", "device.accelerator=cpu")
    train(*words, f"hydra.run.dir={tmp_path}/one")
    finish(ranks_of(warm, program, 2, *words, "device.devices=2", f"hydra.run.dir={tmp_path}/two"))
    one, two = metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two")
    assert len(one) == len(two) > 0
    for ours, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], rel=2e-4)
        assert theirs["constituents"] == ours["constituents"]


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_the_same_command_resumes_it(start, tmp_path) -> None:
    """Ranks 0 and 1 killed in both phases, one after the other: no hang, and the same to the last bit."""
    long = ("+experiment=qcd", "pretrain.steps=80", "finetune.steps=120", "data.repeat=true")
    finish(start(*long, "hydra.run.dir=whole", "pretrain.library=whole_backbones"))
    broken = tmp_path / "broken"
    for rank, steps in ((0, 20), (1, 50), (1, 110), (0, 160)):  # counted over both phases
        processes = start(*long, f"hydra.run.dir={broken}", "pretrain.library=backbones")
        while steps_done(tmp_path / "backbones", broken, 80) < steps:
            assert processes[rank].poll() is None, processes[rank].communicate()[1]
            time.sleep(0.01)
        processes[rank].send_signal(signal.SIGKILL)
        _, error = processes[1 - rank].communicate(timeout=120)  # far below ranks.TIMEOUT
        assert processes[1 - rank].returncode == 1
        assert "RankLost" in error
        assert "another process of this run died" in error
        assert "running the same command again" in error
        if rank == 1:
            assert json.loads((broken / "failed.json").read_text())["error"] == "RankLost"
    finish(start(*long, f"hydra.run.dir={broken}", "pretrain.library=backbones"))
    same_run(broken, tmp_path / "whole")
    assert not (broken / "failed.json").exists()


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_run_after_the_timeout(warm, tmp_path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import time\n"
        "from datetime import timedelta\n"
        "from jetscale.training import ranks\n"
        "from jetscale.training.settings import DeviceSettings\n"
        "ranks.TIMEOUT = timedelta(seconds=4)\n"
        "here = ranks.join(DeviceSettings(devices=2, accelerator='cpu'))\n"
        "ranks.any_rank(False)\n"
        "if here.rank == 1: time.sleep(600)\n"
        "with ranks.losses_named():\n"
        "    ranks.any_rank(False)\n"
    )
    processes = ranks_of(warm, program, 2)
    try:
        _, error = processes[0].communicate(timeout=120)  # far below ranks.TIMEOUT
        assert processes[0].returncode == 1
        assert "RankLost: rank 0 of 2" in error
    finally:
        processes[1].kill()
        processes[1].wait()


@pytest.mark.slow
def test_a_sweep_of_several_ranks_stops_where_one_is_lost(start, tmp_path) -> None:
    """A failed run leaves ranks out of step: no later run of the sweep may be trained with them."""
    processes = start("-m", "finetune.lr=1e30,1e-3")
    errors = [process.communicate(timeout=280)[1] for process in processes]
    assert [process.returncode for process in processes] == [1, 1], "\n".join(errors)
    assert "NonFiniteLoss" in errors[0]
    assert not list(tmp_path.rglob("done.json"))


@pytest.mark.slow
def test_real_srun_and_a_plain_process_in_a_batch_script(slurm, simulated_data, tmp_path) -> None:
    environment = {**quiet_environment(), **slurm.environment}
    train = [
        sys.executable, "-m", "jetscale.train", f"data.dir={simulated_data}", *TINY, "device.accelerator=cpu",
    ]  # fmt: skip
    step = ["srun", "-n", "2", *train, "device.devices=2", f"hydra.run.dir={tmp_path}/step"]
    wrong = ["srun", "-n", "2", *train, f"hydra.run.dir={tmp_path}/wrong"]
    (tmp_path / "job.sh").write_text(
        "#!/bin/sh\nexec " + shlex.join([*train, f"hydra.run.dir={tmp_path}/plain"])
    )
    batch = ["sbatch", "--wait", "-n", "2", "-o", f"{tmp_path}/job.out", str(tmp_path / "job.sh")]
    for command, status in ((step, 0), (wrong, 1), (batch, 0)):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == status, done.stderr
        assert status == 0 or "wants 1 processes, 1 on each node, but srun started 2" in done.stderr
    step_lines, plain_lines = metrics_of(tmp_path / "step"), metrics_of(tmp_path / "plain")
    assert [line["constituents"] for line in step_lines] == [line["constituents"] for line in plain_lines]
    for ours, theirs in zip(step_lines, plain_lines, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-4)

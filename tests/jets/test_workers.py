from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from jetscale.jets.datamodule import JetDataModule
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.building import ensure_store
from jetscale.jets.stores.request import store_request
from jetscale.jets.stores.workers import Workers
from tests.jets.jobs import process_id, process_id_slowly

loky = pytest.importorskip("joblib.externals.loky", reason="joblib comes with the extra `launchers`")


def build(directory: str) -> tuple[int, str]:
    store = ensure_store(store_request(DataSettings(dir=directory), "jetclass", "train"), workers=2)
    return store.n_jets, store.fingerprint


def labels(directory: str, workers: int) -> list[list[int]]:
    settings = DataSettings(dir=directory, workers=workers)
    data = JetDataModule(settings, "jetclass", None, batch_size=4, n_steps=3, seed=0)
    data.setup()
    return [batch.labels_B.tolist() for batch in data.train_dataloader()]


@pytest.mark.slow
def test_a_store_can_be_made_and_loaded_inside_a_joblib_worker(fill: SimpleNamespace, tmp_path: Path) -> None:
    fill.jetclass(tmp_path / "alone")
    shutil.copytree(tmp_path / "alone", tmp_path / "inside")
    worker = loky.get_reusable_executor(max_workers=1)  # Parallel starts at least two, and one would be idle
    assert worker.submit(build, str(tmp_path / "inside")).result() == build(str(tmp_path / "alone"))
    loaded = worker.submit(labels, str(tmp_path / "inside"), 1).result()
    assert loaded == labels(str(tmp_path / "alone"), 0)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_every_job_is_done_once(n_workers: int) -> None:
    with Workers(n_workers) as workers:
        assert sorted(workers.run(abs, range(-5, 0))) == [1, 2, 3, 4, 5]
        processes = set(workers.run(process_id, range(4)))
    assert (os.getpid() in processes) == (n_workers == 1)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_worker_killed_while_it_waits_for_work_holds_nobody_up(killed: int) -> None:
    """It has the queue's lock: stopped first, so that the end has begun when it dies."""
    with Workers(2) as workers:
        ours = sorted(set(workers.run(process_id_slowly, range(6))))
        assert len(ours) == 2
        time.sleep(0.2)
        for process in ours:
            os.kill(process, signal.SIGSTOP)
        leave = threading.Thread(target=workers.__exit__, daemon=True)
        leave.start()
        time.sleep(0.5)
        with suppress(ProcessLookupError):
            os.kill(ours[killed], signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(ours[1 - killed], signal.SIGCONT)
        leave.join(timeout=60)
        assert not leave.is_alive()

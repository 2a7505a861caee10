"""A store of a hundred million jets: one small part, linked under 1,526 names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jetscale.jets.features import PAPER
from jetscale.jets.reading.raw import JET_COLUMNS
from jetscale.jets.stores.packed_jets import PackedJets, packed_schema
from jetscale.jets.stores.packed_store import write_manifest
from jetscale.jets.stores.passes import describe_part, part_name
from jetscale.jets.stores.request import StoreRequest
from tests.warm import WarmServer

N_PARTS, N_JETS = 1526, 65_536

OPEN_AND_READ = """
import json, re, sys, time
from pathlib import Path
from jetscale.jets.datamodule import JetDataModule
from jetscale.jets.settings import DataSettings

def peak():  # KiB; ru_maxrss would start at the largest that the parent had, not at what it had at the fork
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

before = peak()
start = time.process_time()
mix = json.loads(sys.argv[2])
data = JetDataModule(DataSettings(dir=sys.argv[1]), "jetclass2", mix, 128, 500, seed=1)
data.prepare_data()
data.setup()
batches = iter(data.train_dataloader())
next(batches)
opened = time.process_time() - start
start = time.process_time()
assert sum(batch.n_jets for batch in batches) > 0
grown = peak() - before
whole = grown + before
print(json.dumps({"opened": opened, "jets": data.source.store.n_jets, "grown": grown, "whole": whole}))
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("large")
    request = StoreRequest(directory, directory / "store", "jetclass2", "train", "paper", "none")
    request.path.mkdir(parents=True)
    rng = np.random.default_rng(1)
    labels = np.concatenate([np.arange(188), rng.integers(0, 188, N_JETS - 188)]).astype(np.uint8)
    jets = PackedJets(
        offsets=np.arange(0, 3 * N_JETS + 1, 3),
        x_TF=rng.normal(size=(3 * N_JETS, 8)).astype(np.float16),
        pid_T=np.ones(3 * N_JETS, np.uint8),
        labels=labels,
        jets={name: np.ones(N_JETS, np.float32) for name in JET_COLUMNS},
    )
    schema = packed_schema(PAPER, JET_COLUMNS, {"rows_by_label": pa.uint32()}, {})
    first = request.path / part_name(0)
    with pa.ipc.new_file(str(first), schema) as writer:
        by_label = np.argsort(labels, kind="stable").astype(np.uint32)
        writer.write_batch(jets.record_batch(schema, {"rows_by_label": by_label}))
    for number in range(1, N_PARTS):
        os.link(first, request.path / part_name(number))
    entry = describe_part(first, 188)
    sources = [
        {"name": f"QCD_{number:04d}.parquet", "size": 1, "xxh3_128": "0" * 32} for number in range(1340)
    ]
    definition = {**request.definition(), "n_parts": N_PARTS, "sources": sources}
    entries = [{**entry, "file": part_name(number)} for number in range(N_PARTS)]
    write_manifest(request.path, definition, entries)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize(
    "composition",
    [None, {"QCD": 15, "Res2P": 20, "Res34P": 65}, {f"QCD_{name}": 1 for name in ("b", "bb", "c", "light")}],
    ids=["natural", "buckets", "classes"],
)
def test_opens_in_seconds_and_little_memory(
    directory: Path, composition: dict[str, float] | None, warm: WarmServer, tmp_path: Path
) -> None:
    program = tmp_path / "open_and_read.py"
    program.write_text(OPEN_AND_READ)
    run = warm.run(str(program), [str(directory), json.dumps(composition)], tmp_path)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["jets"] >= 100_000_000
    assert found["opened"] < 2
    assert found["grown"] < 512 * 1024, "KiB"
    assert found["whole"] < 1024 * 1024, "the whole process, torch and Lightning included"

from __future__ import annotations

import logging
import pickle
import shutil
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from jetscale.jets.batch import JetBatch
from jetscale.jets.datamodule import JetDataModule, StepBatches
from jetscale.jets.errors import JetDataError
from jetscale.jets.evaluation import EvalSet
from jetscale.jets.features import PAPER
from jetscale.jets.settings import DataSettings
from tests.jets.stores import open_jets
from tests.runs import quiet_environment
from tests.warm import WarmServer

MIX = {"QCD": 15, "Res2P": 20, "Res34P": 65}


@pytest.fixture(scope="module")
def settings(jetclass2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> DataSettings:
    return DataSettings(dir=str(jetclass2_dir), store=str(tmp_path_factory.mktemp("store")), workers=0)


def module(
    settings: DataSettings, n_steps: int = 6, batch_size: int = 32, seed: int = 0, **more
) -> JetDataModule:
    data = JetDataModule(settings, "jetclass2", more.pop("composition", MIX), batch_size, n_steps, seed)
    data.prepare_data()
    data.setup()
    return data


def join(batches: Iterable[JetBatch]) -> JetBatch:
    some = list(batches)
    return JetBatch(
        *(
            torch.cat([getattr(batch, name) for batch in some])
            for name in ("x_TF", "pid_T", "lengths_B", "labels_B", "positions_B")
        )
    )


def same(one: JetBatch, two: JetBatch) -> bool:
    names = ("x_TF", "pid_T", "lengths_B", "labels_B", "positions_B")
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in names)


def shares(data: JetDataModule, n_steps: int, rank: int, world: int) -> list[JetBatch]:
    assert data._stream is not None
    batches = StepBatches(data._stream, data.batch_size, rank, world)
    return [batches[step] for step in range(n_steps)]


def test_shapes_and_types(settings: DataSettings) -> None:
    data = module(settings)
    (first, *_) = data.train_dataloader()
    assert first.n_jets == 32
    assert first.n_constituents == int(first.lengths_B.sum()) == len(first.pid_T)
    assert first.x_TF.shape[1] == data.n_features == 8
    assert (first.x_TF.dtype, first.pid_T.dtype) == (torch.float32, torch.int64)
    assert (first.lengths_B.dtype, first.labels_B.dtype) == (torch.int64, torch.int64)
    assert first.positions_B.tolist() == list(range(32))
    assert data.has_pid
    assert data.n_classes == len(data.class_names) == 188
    assert first.pid_T.min() >= 1
    assert first.pid_T.max() <= 8


def test_batches_hold_standardised_columns(real_jets: Path, tmp_path: Path) -> None:
    target = tmp_path / "JetClassII" / "Pythia" / "QCD_0350.parquet"
    target.parent.mkdir(parents=True)
    shutil.copy(real_jets, target)
    batch = next(EvalSet(DataSettings(dir=str(tmp_path)), "jetclass2").batches(100))
    with open_jets(target) as file:
        (raw,) = file.jets(PAPER.reads)
    computed = PAPER.compute(raw)
    expected = (computed - np.array(PAPER.centre)) / np.array(PAPER.spread)
    # the store mixes jets, so columns are compared as sorted values; half precision keeps 2^-11
    tolerance = 2**-10 * (np.abs(computed) + 1e-3) / np.array(PAPER.spread)
    for column in range(8):
        ours, theirs = np.sort(batch.x_TF[:, column].numpy()), np.sort(expected[:, column])
        np.testing.assert_allclose(ours, theirs, atol=tolerance[:, column].max())
    assert all(batch.x_TF.std(0) < 3)


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_ranks_cover_every_position_once(settings: DataSettings, world: int) -> None:
    data = module(settings)
    alone = [shares(data, 6, 0, 1)[step] for step in range(6)]
    ranks = [shares(module(settings), 6, rank, world) for rank in range(world)]
    for step in range(6):
        assert same(join(batches[step] for batches in ranks), alone[step])


@pytest.mark.filterwarnings(
    "ignore:This DataLoader will create"
)  # more workers than cores, on a small machine
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(settings: DataSettings, workers: int) -> None:
    alone = list(module(settings).train_dataloader())
    loaded = list(module(replace(settings, workers=workers)).train_dataloader())
    assert len(loaded) == 6
    assert all(same(one, two) for one, two in zip(alone, loaded, strict=True))


def test_uneven_ranks(settings: DataSettings) -> None:
    with pytest.raises(JetDataError, match="a batch of 32 jets cannot be shared equally by 3 processes"):
        shares(module(settings), 1, 0, 3)


def test_batch_size_does_not_change_the_order(settings: DataSettings) -> None:
    small, large = module(settings, 16, 8), module(settings, 2, 64)
    assert same(join(small.train_dataloader()), join(large.train_dataloader()))


def test_seed_zero_twice_and_another(settings: DataSettings) -> None:
    zero, again, one = (join(module(settings, seed=seed).train_dataloader()) for seed in (0, 0, 1))
    assert same(zero, again)
    assert not torch.equal(zero.labels_B, one.labels_B)


def test_start_step(settings: DataSettings) -> None:
    whole = list(module(settings).train_dataloader())
    data = module(settings)
    data.start_step = 4
    loader = data.train_dataloader()
    assert all(same(one, two) for one, two in zip(loader, whole[4:], strict=True))
    assert len(loader) == 6, "Lightning counts the steps before the restart too"


def test_single_pass_and_repetition(settings: DataSettings, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(JetDataError, match=r"32,000 jets asked.*of 'Res34P'.*runs out at jet"):
        module(settings, n_steps=1000)
    with caplog.at_level(logging.WARNING):
        module(replace(settings, repeat=True), n_steps=1000)
    assert "Res34P: 32000 jets go" in caplog.text


def test_natural_composition_sees_every_jet(settings: DataSettings) -> None:
    everything = EvalSet(settings, "jetclass2", "train")
    data = module(settings, n_steps=everything.n_jets // 8, batch_size=8, composition=None)
    found = join(data.train_dataloader()).labels_B
    expected = join(everything.batches(100)).labels_B
    assert torch.equal(found.bincount(minlength=188), expected.bincount(minlength=188))


def test_max_constituents_keeps_the_leading_ones(settings: DataSettings) -> None:
    whole = next(EvalSet(settings, "jetclass2").batches(100))
    cut = next(EvalSet(replace(settings, max_constituents=10), "jetclass2").batches(100))
    assert torch.equal(cut.lengths_B, whole.lengths_B.clamp(max=10))
    starts = whole.lengths_B.cumsum(0) - whole.lengths_B
    expected = torch.cat(
        [whole.x_TF[s : s + min(n, 10)] for s, n in zip(starts, whole.lengths_B, strict=True)]
    )
    assert torch.equal(cut.x_TF, expected)
    per_jet = expected[:, 2].split(cut.lengths_B.tolist())
    assert all((jet.diff() <= 0).all() for jet in per_jet), "leading in pT"


def test_undo_deta_flip(real_jets: Path, tmp_path: Path) -> None:
    """Without the flip eta = jet_eta + deta for every constituent, computed here from its momentum."""
    import pyarrow.parquet as pq

    target = tmp_path / "JetClassII" / "QCD_0350.parquet"
    target.parent.mkdir()
    shutil.copy(real_jets, target)
    plain = DataSettings(dir=str(tmp_path))
    shipped = next(EvalSet(plain, "jetclass2").batches(100))
    undone = next(EvalSet(replace(plain, undo_deta_flip=True), "jetclass2").batches(100))
    physical_TF = undone.x_TF * torch.tensor(PAPER.spread) + torch.tensor(PAPER.centre)
    by_length = {}
    for jet in pq.read_table(real_jets).to_pylist():
        px, py, pz = (np.array(jet[f"part_p{axis}"]) for axis in "xyz")
        by_length[jet["jet_label"], round(float(np.log(np.hypot(px, py))[0]), 2)] = (
            np.arcsinh(pz / np.hypot(px, py)) - jet["jet_eta"]
        )
    start, checked = 0, 0
    for label, length in zip(undone.labels_B.tolist(), undone.lengths_B.tolist(), strict=True):
        key = (label, round(float(physical_TF[start, 2]), 2))
        if key in by_length:
            np.testing.assert_allclose(physical_TF[start : start + length, 0], by_length[key], atol=2e-3)
            checked += 1
        start += length
    assert checked > 50
    assert torch.equal(shipped.x_TF[:, 0].abs(), undone.x_TF[:, 0].abs())
    assert torch.equal(shipped.x_TF[:, 1:], undone.x_TF[:, 1:])


def test_fingerprint(settings: DataSettings) -> None:
    base = module(settings).fingerprint
    assert module(settings, n_steps=3, batch_size=8, seed=5).fingerprint == base
    assert module(settings, composition={"QCD": 3, "Res2P": 4, "Res34P": 13}).fingerprint == base
    others = [
        module(settings, composition={"QCD": 1}).fingerprint,
        module(replace(settings, max_constituents=50)).fingerprint,
        module(replace(settings, qcd_labels="1")).fingerprint,
        module(replace(settings, undo_deta_flip=True)).fingerprint,
        module(replace(settings, features="part17")).fingerprint,
        module(replace(settings, selection="sophon"), n_steps=1).fingerprint,
    ]
    assert len({base, *others}) == 1 + len(others)


def test_part17(settings: DataSettings) -> None:
    data = module(replace(settings, features="part17"))
    (first, *_) = data.train_dataloader()
    assert first.x_TF.shape[1] == data.n_features == 17
    assert first.pid_T is None
    assert not data.has_pid


class TestEvalSet:
    def test_first_jets_of_the_split(self, settings: DataSettings) -> None:
        everything = join(EvalSet(settings, "jetclass2").batches(64))
        some = EvalSet(settings, "jetclass2", n_jets=100)
        batches = list(some.batches(64))
        assert [batch.n_jets for batch in batches] == [64, 36]
        found = join(batches)
        assert found.positions_B.tolist() == list(range(100))
        assert torch.equal(found.labels_B, everything.labels_B[:100])
        assert torch.equal(found.x_TF, everything.x_TF[: found.n_constituents])

    @pytest.mark.parametrize("world", [2, 3])
    def test_ranks_share_the_same_batches(self, settings: DataSettings, world: int) -> None:
        jets = EvalSet(settings, "jetclass2", n_jets=300)
        alone = list(jets.batches(32))
        for rank in range(world):
            mine = list(jets.batches(32, rank, world))
            assert all(same(one, two) for one, two in zip(mine, alone[rank::world], strict=True))

    def test_too_many(self, settings: DataSettings) -> None:
        n_jets = EvalSet(settings, "jetclass2").n_jets
        with pytest.raises(JetDataError, match=f"{n_jets + 1:,} test jets asked, there are {n_jets:,}"):
            EvalSet(settings, "jetclass2", n_jets=n_jets + 1)
        with pytest.raises(JetDataError, match="0 test jets asked"):
            EvalSet(settings, "jetclass2", n_jets=0)

    def test_composition(self, settings: DataSettings) -> None:
        jets = EvalSet(settings, "jetclass2", "train", composition={"QCD": 1, "Res2P": 1}, n_jets=200)
        (batch,) = jets.batches(200)
        assert (batch.labels_B >= 161).sum() + (batch.labels_B < 15).sum() == 200
        whole = EvalSet(settings, "jetclass2", "train", composition={"QCD": 1, "Res2P": 1})
        with pytest.raises(JetDataError, match="jets asked, there are"):
            EvalSet(
                settings, "jetclass2", "train", composition={"QCD": 1, "Res2P": 1}, n_jets=whole.n_jets + 1
            )

    def test_classes_left_out(self, settings: DataSettings) -> None:
        jets = EvalSet(replace(settings, qcd_labels="17"), "jetclass2")
        batch = join(jets.batches(50))
        assert batch.labels_B.min() >= 0
        assert batch.labels_B.max() < jets.n_classes == 178
        assert batch.positions_B.tolist() == list(range(jets.n_jets))
        assert jets.n_jets < EvalSet(settings, "jetclass2").n_jets

    def test_fingerprint(self, settings: DataSettings) -> None:
        prints = {EvalSet(settings, "jetclass2", split, n_jets).fingerprint
                  for split in ("test", "train") for n_jets in (10, 20)}  # fmt: skip
        assert len(prints) == 4


class Recorder(L.LightningModule):
    """Trains one number and remembers which positions it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []

    def training_step(self, batch: JetBatch, _: int) -> Tensor:
        self.seen.append(batch.positions_B.tolist())
        return ((batch.x_TF.mean() - self.weight) ** 2).sum()

    def validation_step(self, batch: JetBatch, _: int) -> None:
        """Nothing: the module has jets to validate on, and Lightning wants a step for them."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class SaveAtThree(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == 3:
            trainer.save_checkpoint(self.path)


def trainer(path: Path, *callbacks: Callback) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=path, callbacks=list(callbacks), enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated")  # in lightning 2.6
@pytest.mark.filterwarnings("ignore:The `srun` command is available")  # where Slurm is installed
def test_lightning_goes_on_with_exactly_the_next_batch(settings: DataSettings, tmp_path: Path) -> None:
    undisturbed = Recorder()
    trainer(tmp_path, SaveAtThree(tmp_path / "three.ckpt")).fit(undisturbed, module(settings))
    resumed = Recorder()
    trainer(tmp_path).fit(resumed, module(settings), ckpt_path=tmp_path / "three.ckpt", weights_only=False)
    assert undisturbed.seen == [list(range(step * 32, step * 32 + 32)) for step in range(6)]
    assert resumed.seen == undisturbed.seen[3:]
    assert torch.equal(resumed.weight, undisturbed.weight)


RANK = """
import pickle, sys
from pathlib import Path
import torch
from tests.jets.test_datamodule import module
rank, port = map(int, sys.argv[1:])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
data = module(pickle.loads(Path("settings").read_bytes()))
torch.save([batch.positions_B for batch in data.train_dataloader()], f"rank{rank}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes(settings: DataSettings, warm: WarmServer, tmp_path: Path) -> None:
    """Both prepare at once, then each has its half of every batch."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fresh = replace(settings, store=str(tmp_path / "store"))
    (tmp_path / "settings").write_bytes(pickle.dumps(fresh))
    (tmp_path / "rank.py").write_text(RANK)
    processes = [
        warm.start(str(tmp_path / "rank.py"), [str(rank), str(port)], tmp_path, quiet_environment())
        for rank in (0, 1)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    halves = [torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1)]
    for step, (one, two) in enumerate(zip(*halves, strict=True)):
        assert torch.cat([one, two]).tolist() == list(range(step * 32, step * 32 + 32))

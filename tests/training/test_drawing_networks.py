"""Networks that draw or count while they train, as users may add them, go on exactly after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from jetscale.jets.batch import JetBatch
from jetscale.model.network import NETWORKS, Network
from jetscale.training.checkpoint import Checkpoints
from jetscale.training.generators import Generators
from jetscale.training.settings import TrainSettings
from tests.jets.conftest import fill_jetclass
from tests.training.phases import Killed, killing, same, settings_of, trained

LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "dropout": lambda dim: nn.Dropout(0.3),
    "batchnorm": lambda dim: nn.BatchNorm1d(dim),
}


class Drawing(Network):
    """The mean over the constituents, a layer of `LAYERS`, and a head."""

    layer = "dropout"

    def __init__(self, dim: int, n_classes: int, n_features: int, n_pid: int) -> None:
        super().__init__(dim, n_classes, n_features, n_pid)
        self.embed = nn.Linear(n_features, dim)
        self.special = LAYERS[self.layer](dim)
        self.head = nn.Linear(dim, n_classes)

    def forward(self, batch: JetBatch) -> Tensor:
        jets_T = torch.arange(batch.n_jets).repeat_interleave(batch.lengths_B)
        x_TD = self.embed(batch.x_TF)
        means_BD = x_TD.new_zeros(batch.n_jets, self.dim).index_add(0, jets_T, x_TD)
        logits_BK: Tensor = self.head(self.special(means_BD / batch.lengths_B[:, None]).relu())
        return logits_BK

    def flops(self, lengths_B: Tensor | Sequence[int], backward: bool = True) -> int:
        return len(lengths_B)


@pytest.fixture(scope="module")
def jets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jets")
    fill_jetclass(folder, n_jets=30)
    return folder


@pytest.fixture(params=list(LAYERS))
def settings(request: pytest.FixtureRequest, jets: Path, monkeypatch: pytest.MonkeyPatch) -> TrainSettings:
    """Settings of a run whose network has the layer."""
    monkeypatch.setattr(Drawing, "layer", request.param)
    monkeypatch.setitem(NETWORKS._entries, "drawing", Drawing)
    made = settings_of(jets)
    made.model.arch = "drawing"
    return made


def test_killed_and_resumed_it_is_the_same_to_the_last_bit(settings: TrainSettings, tmp_path: Path) -> None:
    whole = trained(settings, tmp_path / "whole")
    for step in (9, 25):
        with pytest.raises(Killed):
            trained(settings, tmp_path / "run", killing(None, step))
    torch.manual_seed(12_345)  # what a new process has drawn before is nothing to the run
    resumed = trained(settings, tmp_path / "run")
    assert min(resumed.checkpoints) > 21, "it went on and did not start anew"
    same(resumed, whole)


def test_a_checkpoint_without_generators_is_still_read(settings: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        trained(settings, tmp_path / "run", killing(None, 16))
    checkpoints = Checkpoints(tmp_path / "run/checkpoints", "finetune")
    state = checkpoints.load() or {}
    assert state.pop("generators")
    for file in checkpoints.directory.iterdir():
        file.unlink()
    checkpoints.save(state, state["step"])
    assert min(trained(settings, tmp_path / "run").checkpoints) > 14


def test_states_are_those_of_the_rank_and_of_no_other_number_of_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = [{"cpu": torch.tensor([rank], dtype=torch.uint8), "cuda": None} for rank in range(2)]
    assert Generators.of_this_rank(kept) is None
    assert Generators.of_this_rank([]) is None
    monkeypatch.setattr("jetscale.training.ranks.world_size", lambda: 2)
    monkeypatch.setattr("jetscale.training.ranks.rank", lambda: 1)
    mine = Generators.of_this_rank(kept)
    assert mine is not None
    assert mine.cpu.tolist() == [1]


def test_what_is_drawn_after_them_is_drawn_again() -> None:
    device = torch.device("cpu")
    kept = Generators.now(device)
    first = torch.rand(5)
    assert not torch.equal(torch.rand(5), first)
    kept.restore(device)
    assert torch.equal(torch.rand(5), first)

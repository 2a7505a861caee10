"""Training batches for Lightning."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader, Dataset

from jetscale.jets.batch import JetBatch
from jetscale.jets.errors import JetDataError
from jetscale.jets.evaluation import EvalSet
from jetscale.jets.ordering.positions import MixedOrder
from jetscale.jets.settings import DataSettings
from jetscale.jets.source import JetSource
from jetscale.jets.stores.workers import loader_context
from jetscale.jets.stream import JetStream

log = logging.getLogger(__name__)


class StepBatches(Dataset[JetBatch]):
    """The share that one rank has of the global batch of every step, by step number.

    Step s with global batch B takes positions s * B to (s + 1) * B; rank r of R has the r-th of R equal
    shares.
    """

    def __init__(self, stream: JetStream, batch_size: int, rank: int, world: int) -> None:
        if batch_size % world:
            raise JetDataError(f"a batch of {batch_size} jets cannot be shared equally by {world} processes")
        self._stream = stream
        self._batch_size = batch_size
        self._share = batch_size // world
        self._rank = rank

    def __getitem__(self, step: int) -> JetBatch:
        start = step * self._batch_size + self._rank * self._share
        return self._stream.batch(start, start + self._share)


class StepLoader:
    """Batches of steps `start` to `n_steps`.

    Not a `DataLoader` to Lightning, which would give one another sampler under DDP. Its length is that of
    the whole run, since Lightning counts the steps before a restart too. It has the methods of a loader
    whose state can be restored, with nothing in them: the position belongs to the run
    (`JetDataModule.start_step`).
    """

    def __init__(self, batches: StepBatches, start: int, n_steps: int, workers: int) -> None:
        self._batches = batches
        self._start = start
        self._n_steps = n_steps
        self._workers = workers

    def __len__(self) -> int:
        return self._n_steps

    def __iter__(self) -> Iterator[JetBatch]:
        steps = range(self._start, self._n_steps)
        pin = torch.cuda.is_available()
        return iter(
            DataLoader(
                self._batches,
                batch_size=None,
                sampler=steps,
                num_workers=self._workers,
                pin_memory=pin,
                multiprocessing_context=loader_context(self._workers),
            )
        )

    def state_dict(self) -> dict[str, Any]:
        """No state: the position belongs to the run."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class EvaluationLoader:
    """Every `world`-th batch, from number `rank`, of a fixed set of jets.

    Not a `DataLoader` to Lightning, which under DDP would repeat jets until all processes have equally many.
    """

    def __init__(self, jets: EvalSet, batch_size: int, rank: int, world: int) -> None:
        self._jets = jets
        self._batch_size = batch_size
        self._rank = rank
        self._world = world

    def __len__(self) -> int:
        return len(range(self._rank * self._batch_size, self._jets.n_jets, self._world * self._batch_size))

    def __iter__(self) -> Iterator[JetBatch]:
        return self._jets.batches(self._batch_size, self._rank, self._world)


class JetDataModule(L.LightningDataModule):
    """Jets of the training split, in an order that is a pure function of (seed, composition, position).

    The jets to validate, test and predict are the first ones of their split, the same for every run.

    Parameters
    ----------
    settings : where the jets are, and how they become inputs
    dataset : name of the dataset
    composition : see `Composition.from_request`; None for the store as it is
    batch_size : jets per step, over all processes
    n_steps : steps of the run
    seed : seed of the order
    evaluation_jets : jets to validate, test or predict; None for all of the split
    evaluation_batch_size : jets in one forward pass of these, on each process

    Attributes
    ----------
    start_step : step of the first batch to come; set it before the loader is made, to go on with a run
    """

    def __init__(
        self,
        settings: DataSettings,
        dataset: str,
        composition: Mapping[str, Any] | None,
        batch_size: int,
        n_steps: int,
        seed: int,
        evaluation_jets: int | None = None,
        evaluation_batch_size: int = 512,
    ) -> None:
        super().__init__()
        self.start_step = 0
        self.batch_size = batch_size
        self.n_steps = n_steps
        self.source = JetSource(settings, dataset, "train", composition, seed)
        self._settings = settings
        self._evaluation_jets = evaluation_jets
        self._evaluation_batch_size = evaluation_batch_size
        self._stream: JetStream | None = None

    def state_dict(self) -> dict[str, int]:
        """For Lightning's checkpoints: how many batches the training has taken."""
        trainer = self.trainer
        return {"step": 0 if trainer is None else trainer.global_step * trainer.accumulate_grad_batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on after the batches that a training took before Lightning's checkpoint."""
        self.start_step = state_dict["step"]

    def prepare_data(self) -> None:
        """Make the packed store where it is missing. Any number of processes may call this at once."""
        if self.trainer is not None and self.trainer.state.fn != "fit":
            return  # the jets to train on may not be there
        _ = self.source.store  # made where it is missing, and kept open for `setup`

    def setup(self, stage: str | None = None) -> None:
        """Open the store, and compare the number of jets in it with the number that the run needs.

        Raises
        ------
        JetDataError
            A component of the composition has fewer jets than the run asks for, and `repeat` is off.
        """
        if self._stream is not None or stage not in (None, "fit"):
            return
        order = self.source.order
        assert isinstance(order, MixedOrder)
        n_jets = self.batch_size * self.n_steps
        if not self._settings.repeat:
            order.check_supply(n_jets)
        for selector, passes in order.passes(n_jets).items():
            if passes > 1:
                log.warning("%s: %d jets go %.3g times through its jets", selector, n_jets, passes)
        self._stream = JetStream(self.source)

    @property
    def n_classes(self) -> int:
        """Number of classes K: all of the dataset's label map, in every composition."""
        return self.source.labels.n_classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the model's output."""
        return self.source.labels.names

    @property
    def n_features(self) -> int:
        """Number F of continuous inputs per constituent."""
        return self.source.features.n_features

    @property
    def has_pid(self) -> bool:
        """Whether batches carry an integer identity."""
        return self.source.features.has_pid

    @property
    def fingerprint(self) -> str:
        """Identity of the data, not of the seed: content of the store, composition, how inputs are made."""
        return self.source.fingerprint()

    @property
    def stream(self) -> JetStream:
        """The training jets by position."""
        if self._stream is None:
            raise RuntimeError("call setup() first")
        return self._stream

    def train_dataloader(self) -> StepLoader:
        """Batches of steps `start_step` to `n_steps`, this process's share of each."""
        batches = StepBatches(self.stream, self.batch_size, *_place())
        return StepLoader(batches, self.start_step, self.n_steps, self._settings.workers)

    def val_dataloader(self) -> EvaluationLoader:
        """Batches of the validation split, this process's share."""
        return self._evaluation_loader("val")

    def test_dataloader(self) -> EvaluationLoader:
        """Batches of the test split, this process's share."""
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> EvaluationLoader:
        """The same as to test."""
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> EvaluationLoader:
        jets = EvalSet(self._settings, self.source.dataset.name, split, self._evaluation_jets)
        return EvaluationLoader(jets, self._evaluation_batch_size, *_place())


def _place() -> tuple[int, int]:
    """Number of this process, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1

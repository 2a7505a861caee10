"""Whether there are jets for every phase of a run and for its test, found before its first step.

Otherwise a lack of jets to fine-tune or to test with would be found after the pretraining, hours later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from jetscale.common.files import fingerprint
from jetscale.jets.errors import mention_once
from jetscale.jets.evaluation import check_evaluation
from jetscale.jets.ordering.positions import MixedOrder
from jetscale.jets.source import JetSource
from jetscale.jets.stores.building import store_or_files
from jetscale.jets.stores.packed_store import Store
from jetscale.jets.stores.request import StoreRequest
from jetscale.training.budgets import lack_told
from jetscale.training.build import design
from jetscale.training.phase_settings import Phase
from jetscale.training.settings import TrainSettings

TEST = "eval"
"""The key of `TrainSettings` that the test's number of jets belongs to."""


@dataclass(frozen=True)
class Need:
    """Jets that a phase of a run trains on, or that it is tested with.

    Attributes
    ----------
    use : ``pretrain``, ``finetune`` or ``eval``
    source : the jets
    n_jets : how many
    repeat : whether a training may see jets again
    """

    use: str
    source: JetSource
    n_jets: int
    repeat: bool

    @property
    def key(self) -> str:
        """Needs of one key are met or not met together, but for the last jets before a component runs out."""
        source = self.source
        return fingerprint(
            [
                self.use,
                str(source.request),
                source.composition.definition(),
                list(source.labels.class_of_label),
                self.n_jets,
                self.repeat,
            ]
        )

    @property
    def is_counted(self) -> bool:
        """Whether the counts in a store's manifest tell if it is met; a window needs every jet's value."""
        return not any(component.windows for component in self.source.composition.components)

    def check(self, store: Store) -> None:
        """Demand that a store meets it.

        Parameters
        ----------
        store : the one of `source`

        Raises
        ------
        JetDataError
            A component of the composition has no jet, or (`JetsRunOut`) fewer than asked.
        """
        with lack_told(self.use):
            if self.use == TEST:
                check_evaluation(self.source, store, self.n_jets)
                return
            order = self.source.order_in(store)
            assert isinstance(order, MixedOrder)
            if not self.repeat:
                order.check_supply(self.n_jets)

    def mention_absent_classes(self, store: Store) -> None:
        """Warn of classes without a jet: the loss is that of the other classes alone."""
        labels, counts = self.source.labels, store.label_counts
        absent = [
            name for number, name in enumerate(labels.names) if not counts[labels.labels_of((number,))].any()
        ]
        if absent:
            shown = f"{', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}"
            mention_once(
                f"{store.path} {absent}",
                f"{store.path}: {len(absent)} of {labels.n_classes} classes have no jet here ({shown}); the "
                "loss is that of the other classes alone",
            )


def needs_of(settings: TrainSettings, phases: Mapping[Phase, tuple[JetSource, int]]) -> list[Need]:
    """What a run needs: the jets of its phases in their order, then those of the test.

    Parameters
    ----------
    settings : the run's
    phases : by phase the jets that it trains on, and how many it sees, with steps capped
    """
    repeat = settings.data.repeat
    needs = [Need(name, source, n_jets, repeat) for name, (source, n_jets) in phases.items()]
    test = JetSource(settings.data, settings.finetune.dataset, "test")
    return [*needs, Need(TEST, test, settings.eval.jets, repeat)]


def check_found(needs: Iterable[Need]) -> None:
    """Compare needs with what is here now: nothing is packed, and no jet is read.

    A store that is not made yet is passed over, if there are files to make it from; so is a composition with
    windows, for which every jet would have to be read.

    Parameters
    ----------
    needs : of any number of runs

    Raises
    ------
    JetDataError
        A dataset or a split is missing; a store is damaged, or has too few jets.
    """
    stores: dict[StoreRequest, Store | None] = {}
    for need in {need.key: need for need in needs}.values():
        request = need.source.request
        if request not in stores:
            stores[request] = store_or_files(request)
        store = stores[request]
        if store is not None and need.is_counted:
            need.check(store)


def check_supply(settings: TrainSettings) -> None:
    """Demand all jets of a run before its first step; the stores of fine-tuning and test are made for it.

    That of the pretraining is made and checked when the pretraining begins.

    Parameters
    ----------
    settings : the run's

    Raises
    ------
    JetDataError
        A dataset or a split is missing, its files cannot be packed, or there are too few jets.
    """
    phases = {}
    with torch.device("meta"):  # sizes alone: no weight is drawn
        for name in settings.phases:
            phase, _, data = design(settings, name)
            phases[name] = data.source, phase.steps * phase.batch_size
    needs = needs_of(settings, phases)
    check_found(needs)
    for need in needs:
        if need.use != Phase.PRETRAIN:
            need.check(need.source.store)
            need.mention_absent_classes(need.source.store)

"""Datasets: one object that holds all that jetscale knows of a dataset, and the registry of all of them.

A further dataset is one file: make a `Dataset`, and register it under its name with `DATASETS`. Nothing else
in jetscale asks for a dataset by name. Top tagging (`jetscale.jets.datasets.top_tagging`) is an example.

This module imports neither torch nor the readers, since ``--help`` and the simulator need it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from jetscale.common.registry import Registry
from jetscale.jets.errors import JetDataError, LackingColumn

if TYPE_CHECKING:
    from jetscale.jets.features import FeatureSet
    from jetscale.jets.reading.locations import File
    from jetscale.jets.reading.raw import RawJets

SPLITS = ("train", "val", "test")

REQUIRED = (
    "part_px",
    "part_py",
    "part_energy",
    "part_deta",
    "part_dphi",
    "jet_pt",
    "jet_eta",
    "jet_nparticles",
)
"""Columns that every dataset has (GeV, rad, 1); all of them follow from the constituents' four-momenta."""

FROM_MOMENTA = (
    *(f"part_{name}" for name in ("px", "py", "pz", "energy", "deta", "dphi")),
    *(f"jet_{name}" for name in ("pt", "eta", "phi", "energy", "nparticles")),
)
"""Columns of a dataset that has four-momenta alone (`jetscale.jets.reading.momenta.jets_from_momenta`)."""


@dataclass(frozen=True)
class JetFile:
    """One published or simulated file, as its name describes it.

    Attributes
    ----------
    dataset : name of the dataset
    process : what the jets of the file come from: JetClass process, JetClass-II bucket
    number : the file number in the name; 0 where there is none
    split : ``train``, ``val`` or ``test``
    path : where the public recipes expect it, relative to the data directory
    """

    dataset: str
    process: str
    number: int
    split: str
    path: Path


@dataclass(frozen=True)
class Anatomy:
    """Prongs and flavours of a class.

    Attributes
    ----------
    prongs : matched decay products other than neutrinos; 1 for QCD, which has no resonance
    flavours : kinds of parton or lepton that the name tells: b c s q (u or d) g e m tau, and light for
        QCD jets without b, c, s. JetClass names leave most quarks open: Wqq has none, Tbqq has b
    """

    prongs: int
    flavours: frozenset[str]


class JetReader(Protocol):
    """One open jet file of a dataset.

    Three further methods may be there, so that jets without usable labels can be scored: `leave_labels_out()`
    returns whether the file has no labels, and then reads none; `ignore_labels()` reads none from now on;
    `check_labels(step)` reads the labels alone, at most `step` jets at a time, and raises JetDataError.
    """

    n_jets: int

    def read(self, columns: Sequence[str], start: int, stop: int, step: int) -> Iterator[RawJets]:
        """Jets `start` to `stop` (entry numbers) with these columns, at most `step` at a time, in order.

        Parameters
        ----------
        columns : published names of columns
        start, stop : entry numbers, `stop` exclusive
        step : most jets at a time

        Raises
        ------
        JetDataError
            A column is missing or of another type, or a label does not exist.
        """

    def close(self) -> None:
        """Close the file."""


def _as_stored(label: str, qcd_labels: str) -> str | None:
    """Each stored label is a class."""
    del qcd_labels
    return label


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset: its files, labels and columns. What it does not have is absent, never zero as if measured.

    Attributes
    ----------
    name : in settings, stores and results, e.g. ``jetclass2``
    title : in sentences, e.g. ``JetClass-II``
    origin : where the public files come from, for the error that finds none
    folder : of its files, inside the data directory
    suffixes : of its files
    file_names : form of a file's name, e.g. ``{Bucket}_{NNNN}.parquet``
    layout : what its files are, e.g. ``parquet files {Bucket}_{NNNN}.parquet``
    labels : names of the labels that are stored with jets; the label of a jet is its position here (at most
        256)
    columns : published names of the columns that `open` can read: ``part_*`` per constituent, ``jet_*`` per
        jet; `REQUIRED` and any of the others that JetClass has (`jetscale.jets.datasets.jetclass`), in GeV,
        mm, rad
    file_of : process, number and split of a file name; raises ValueError for a name of another form
    open : opens a file for reading; the second argument is the name for errors
    anatomy : prongs and flavours by class name; empty where a composition cannot ask for them
    buckets : groups of labels that a composition may name
    class_of : class of a label under ``data.qcd_labels``; None leaves its jets out. By default each label is
        one
    numbered : file of a process and number, for a dataset that jetscale can simulate; else None
    downloadable : whether ``python -m jetscale.download`` fetches its public files
    processes : beginnings of file names by which misplaced files are recognised
    """

    name: str
    title: str
    origin: str
    folder: str
    suffixes: tuple[str, ...]
    file_names: str
    layout: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    file_of: Callable[[str], JetFile]
    open: Callable[[Path, File], JetReader]
    anatomy: Mapping[str, Anatomy] = field(default_factory=dict)
    buckets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    class_of: Callable[[str, str], str | None] = _as_stored
    numbered: Callable[[str, int], JetFile] | None = None
    downloadable: bool = False
    processes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if missing := [name for name in REQUIRED if name not in self.columns]:
            raise JetDataError(
                f"dataset {self.name!r}: columns lack {', '.join(missing)}, which every dataset has"
            )
        if not 0 < len(self.labels) <= 256:
            raise JetDataError(
                f"dataset {self.name!r}: has {len(self.labels)} labels; from 1 to 256 can be stored"
            )

    @property
    def flavours(self) -> tuple[str, ...]:
        """All flavours that a composition can ask for."""
        return tuple(sorted(frozenset().union(*(anatomy.flavours for anatomy in self.anatomy.values()))))

    def require(self, columns: Sequence[str], purpose: str, way_out: str) -> None:
        """Check that the dataset has these columns.

        Parameters
        ----------
        columns : published names
        purpose : what needs them, e.g. ``features=paper``
        way_out : what to do where they are missing

        Raises
        ------
        LackingColumn
            It lacks some; they are named.
        """
        if missing := [name for name in columns if name not in self.columns]:
            raise LackingColumn(
                f"{purpose} needs {', '.join(missing)}, which {self.title} does not have; {way_out}"
            )

    def feature_set(self, name: str) -> FeatureSet:
        """Inputs of that name, which the dataset has the columns for.

        Raises
        ------
        JetDataError
            There is no such feature set, or (`LackingColumn`) it needs a column that the dataset does not
            have.
        """
        from jetscale.jets.features import FEATURE_SETS, feature_set

        features = feature_set(name)
        possible = [
            other.name for other in FEATURE_SETS.values() if all(need in self.columns for need in other.needs)
        ]
        self.require(features.needs, f"features={name}", f"take features={' or '.join(possible)}")
        return features

    def label_map(self, qcd_labels: str = "27") -> LabelMap:
        """Classes that a model of this dataset tells apart.

        Parameters
        ----------
        qcd_labels : how the QCD labels of JetClass-II become classes

        Raises
        ------
        JetDataError
            There is no such map.
        """
        class_names = [self.class_of(label, qcd_labels) for label in self.labels]
        names = tuple(dict.fromkeys(name for name in class_names if name is not None))
        index = {name: number for number, name in enumerate(names)}
        of_label = tuple(-1 if name is None else index[name] for name in class_names)
        buckets = {
            bucket: tuple(sorted({of_label[self.labels.index(label)] for label in labels} - {-1}))
            for bucket, labels in self.buckets.items()
        }
        return LabelMap(self, names, of_label, buckets)


@dataclass(frozen=True)
class LabelMap:
    """Classes of a model and the stored labels that they stand for.

    Attributes
    ----------
    dataset : whose labels they are
    names : K class names; position = class index in the model's output
    class_of_label : class index of each stored label; -1 for a label that belongs to no class (its jets are
        left out)
    buckets : bucket name to its class indices; empty where the dataset has none
    """

    dataset: Dataset
    names: tuple[str, ...]
    class_of_label: tuple[int, ...]
    buckets: Mapping[str, tuple[int, ...]]

    @property
    def n_classes(self) -> int:
        """Number of classes, K."""
        return len(self.names)

    def labels_of(self, classes: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Stored labels that belong to `classes`, ascending, int64."""
        return np.flatnonzero(np.isin(np.asarray(self.class_of_label), classes))


DATASETS: Registry[Dataset] = Registry(
    "dataset",
    {
        "jetclass": "jetscale.jets.datasets.jetclass:JETCLASS",
        "jetclass2": "jetscale.jets.datasets.jetclass2:JETCLASS2",
        "top_tagging": "jetscale.jets.datasets.top_tagging:TOP_TAGGING",
    },
)
"""All datasets by name."""


def all_datasets() -> list[Dataset]:
    """Every dataset that is known here."""
    return [DATASETS[name] for name in DATASETS.names()]


def jet_file(dataset: str, process: str, number: int) -> JetFile:
    """File of a process and number of a dataset that can be simulated, placed in its split.

    Parameters
    ----------
    dataset, process : names
    number : file number

    Raises
    ------
    ValueError
        No such process, or a number outside the published numbering.
    """
    numbered = DATASETS[dataset].numbered
    if numbered is None:
        raise ValueError(f"the files of {dataset} are not numbered by process")
    return numbered(process, number)

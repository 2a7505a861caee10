"""What ``done.json`` says of a finished run or pretraining, as frozen dataclasses.

Every key is a field here, and every field is a key. Since format 2 (sealed files) an unknown, missing or
wrongly typed key is an error that names file and key. Files of format 1 may lack any key, which is None then,
and their other keys are passed over.
"""

from __future__ import annotations

import platform
import subprocess
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import jetscale
from jetscale.common.files import DamagedFile

_PACKAGES = ("torch", "lightning", "hydra-core", "numpy", "pyarrow", "numba", "wandb")

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class PhaseRecord:
    """What one phase was and cost.

    Attributes
    ----------
    steps, batch_size : optimiser steps, and jets in each
    jets, constituents : that entered the loss
    flops : the paper's C = 6 N 40 jets
    seconds : wall time, over all starts
    n_params : N by kind of parameter, and their ``total``
    lr : peak learning rate
    precision : of the steps, which ``device.precision=auto`` leaves open; None where an earlier version wrote
    """

    steps: int | None
    jets: float | None
    constituents: float | None
    flops: float | None
    seconds: float | None
    n_params: dict[str, float] | None
    batch_size: int | None
    lr: float | None
    precision: str | None = None

    @property
    def n_params_total(self) -> float | None:
        """N: all parameters; None where it is not known."""
        return (self.n_params or {}).get("total")


@dataclass(frozen=True, kw_only=True)
class PretrainRecord(PhaseRecord):
    """A finished pretraining: ``done.json`` of a backbone, and ``pretrain`` in that of the runs that use it.

    Attributes
    ----------
    fingerprint : of its settings and jets
    data : fingerprint of its jets
    path : its folder; None in that folder's own file
    """

    fingerprint: str | None
    data: str | None
    path: str | None = None


@dataclass(frozen=True, kw_only=True)
class FinalLoss:
    """Test loss at the end of a run, for one kind of weights.

    Attributes
    ----------
    loss : mean cross-entropy, nats
    accuracy : share of jets whose largest logit is the label's
    jets : test jets
    """

    loss: float
    accuracy: float | None
    jets: int | None


@dataclass(frozen=True, kw_only=True)
class JetsFrom:
    """Where the jets of one split were.

    Attributes
    ----------
    dir : their folder or address
    fingerprint : of names, sizes and checksums of the files
    made_by : the simulator and its version, or that no simulator's manifest is beside the files; None where
        it is not known (an earlier version's run, jets at an address, a store without its files)
    """

    dir: str
    fingerprint: str
    made_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunRecord(PhaseRecord):
    """A finished run; what is inherited is that of fine-tuning.

    Attributes
    ----------
    subset, dim, seed : its place in the grid
    variant : the overrides beyond subset, width and seed
    final : final test loss by weights (``raw``, ``ema``)
    pretrain : of the backbone; None from scratch
    data : fingerprints of the jets, ``train`` and ``test``
    jets_from : for ``finetune/train`` and so on, where the jets were; None in a run of an earlier version
    threads : CPU threads
    versions : of Python and the packages that decide the numbers
    git : commit of the checkout and whether it had changes; None for an installed wheel
    """

    subset: str | None
    dim: int | None
    seed: int | None
    variant: str | None
    final: dict[str, FinalLoss] | None
    pretrain: PretrainRecord | None
    data: dict[str, str] | None
    jets_from: dict[str, JetsFrom] | None
    threads: int | None
    versions: dict[str, str] | None
    git: dict[str, Any] | None

    @property
    def final_losses(self) -> dict[str, float]:
        """Final test loss in nats by weights; empty where the file does not say."""
        return {weights: final.loss for weights, final in (self.final or {}).items()}


def to_json(record: PretrainRecord | RunRecord) -> dict[str, Any]:
    """`record` as the keys of its ``done.json``."""
    content = asdict(record)
    if isinstance(record, PretrainRecord):
        del content["path"]
    return content


def from_json(kind: type[Record], content: dict[str, Any], path: Path, complete: bool) -> Record:
    """Build a record from the content of a file.

    Parameters
    ----------
    kind : the dataclass
    content : keys and values
    path : the file, for messages
    complete : whether every field must be there and no other key may be; False for files of format 1

    Returns
    -------
    The record; fields that the file lacks are None.

    Raises
    ------
    DamagedFile
        A key is missing, unknown, or its value is of another type.
    """
    return _built(kind, content, path, "", complete)


def _built(kind: type[Record], content: dict[str, Any], path: Path, prefix: str, complete: bool) -> Record:
    hints = get_type_hints(kind)
    values = {}
    for entry in fields(kind):  # type: ignore[arg-type]  # dataclasses only, see `from_json`
        key = f"{prefix}{entry.name}"
        if entry.name in content:
            values[entry.name] = _value(hints[entry.name], content[entry.name], path, key, complete)
        elif complete and entry.default is MISSING:
            raise DamagedFile(f"{path} lacks the key {key!r}, which every finished run has")
        else:
            values[entry.name] = None
    if complete and (unknown := sorted(set(content) - set(hints))):
        raise DamagedFile(
            f"{path} has the unknown key '{prefix}{unknown[0]}'; this version of jetscale reads "
            f"{', '.join(sorted(hints))}: use the version that wrote it"
        )
    return kind(**values)


def _value(kind: Any, value: Any, path: Path, key: str, complete: bool) -> Any:
    kinds = get_args(kind) if NoneType in get_args(kind) else (kind,)
    if value is None and NoneType in kinds:
        return None
    (plain,) = (one for one in kinds if one is not NoneType)
    if plain is Any:
        return value
    if is_dataclass(plain) and isinstance(value, dict):
        return _built(plain, value, path, f"{key}.", complete)  # type: ignore[arg-type]  # a class
    if get_origin(plain) is dict and isinstance(value, dict):
        _, entry = get_args(plain)
        return {name: _value(entry, one, path, f"{key}.{name}", complete) for name, one in value.items()}
    accepted = (int, float) if plain is float else plain
    if get_origin(plain) is dict or is_dataclass(plain) or not isinstance(value, accepted):
        name = "a mapping" if get_origin(plain) is dict or is_dataclass(plain) else plain.__name__
        raise DamagedFile(f"{path}: the key {key!r} has the value {value!r}, and must be {name}")
    return value


def versions() -> dict[str, str]:
    """Versions of jetscale, Python and the packages that decide the numbers."""
    found = {"jetscale": jetscale.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout that jetscale runs from, and whether it has changes; None for a wheel."""
    here = Path(jetscale.__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None
    try:
        commit = _git(here, "rev-parse", "HEAD")
        dirty = bool(_git(here, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "dirty": dirty}


def _git(where: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True)
    return done.stdout.strip()

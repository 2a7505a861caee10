"""What a finished run says of its network: verified files, settings and weights."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jetscale.common.fields import problems
from jetscale.common.files import DamagedFile
from jetscale.common.usage import UsageError
from jetscale.jets.datasets.base import DATASETS, Dataset
from jetscale.jets.features import N_PID
from jetscale.jets.inputs import Inputs
from jetscale.jets.settings import DataSettings
from jetscale.model import DEFAULT, NETWORKS
from jetscale.model.network import Network, build_network
from jetscale.runs.config_file import read_config
from jetscale.runs.done import read_either
from jetscale.runs.layout import CONFIG, DONE, MARKS, NOT_RUNS, PATH_PATTERN, WEIGHTS
from jetscale.runs.record import PretrainRecord, RunRecord
from jetscale.runs.weights_file import CheckpointError, verified_content

log = logging.getLogger(__name__)

WEIGHT_KINDS = {"raw": "weights", "ema": "average"}
"""Kinds of weights, and where the file of final weights has them."""

_FORM = f"multirun/<study>/{PATH_PATTERN}[/<overrides>]"
"""Of the path of a run directory."""
_WAY_OUT = "put back an undamaged copy of it, or make the run anew"


@dataclass(frozen=True)
class FinishedRun:
    """A finished run or pretraining whose files were compared with their checksums.

    Attributes
    ----------
    path : the run directory
    record : what ``done.json`` says
    config : what ``config.yaml`` says, as plain values
    data : how its jets became inputs, and where they were
    dataset : the jets that the network classifies
    """

    path: Path
    record: RunRecord | PretrainRecord
    config: dict[str, Any]
    data: DataSettings
    dataset: Dataset

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the network's outputs."""
        return self.dataset.label_map(self.data.qcd_labels).names

    @property
    def inputs(self) -> Inputs:
        """How jets become inputs of the network."""
        features = self.dataset.feature_set(self.data.features)
        return Inputs(features, self.data.max_constituents, self.data.undo_deta_flip)

    def network(self, weights: str | None) -> tuple[Network, str]:
        """The trained network, ready for inference, and the kind of its weights.

        Parameters
        ----------
        weights : ``raw``, ``ema``, or None for ``ema`` where the run kept an average and ``raw`` elsewhere

        Raises
        ------
        UsageError
            The run has no such weights, or they are damaged or of another network.
        """
        states = self._weights()
        chosen = weights or ("ema" if states["ema"] is not None else "raw")
        if chosen not in states:
            raise UsageError(f"weights={weights}: must be one of {', '.join(states)}")
        state = states[chosen]
        if state is None:
            raise UsageError(
                f"weights=ema: {self.path} kept no average of its weights; take weights=raw, or make a run "
                "with ema.enabled=true"
            )
        network = self._empty_network()
        try:
            network.load_state_dict(dict(state))
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"{self.path / WEIGHTS}: not the weights of this network ({reason})") from error
        return network.eval().requires_grad_(False), chosen

    def _weights(self) -> dict[str, Mapping[str, Tensor] | None]:
        path = self.path / WEIGHTS
        try:
            content = verified_content(path)
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (CheckpointError, OSError) as error:
            raise UsageError(f"{error}; {_WAY_OUT}") from error
        found, stated = state.get("arch", DEFAULT), self._model["arch"]
        if found != stated:
            raise UsageError(f"{path} holds model.arch={found}, {CONFIG} says {stated}; {_WAY_OUT}")
        return {kind: state.get(key) for kind, key in WEIGHT_KINDS.items()}

    @property
    def _model(self) -> dict[str, Any]:
        return {"arch": DEFAULT, **self.config["model"]}

    def _empty_network(self) -> Network:
        model = self._model
        if missing := sorted({"dim", *NETWORKS[model["arch"]].options} - set(model)):
            raise UsageError(f"{self.path / CONFIG} lacks model.{missing[0]}; {_WAY_OUT}")
        features = self.inputs.features
        n_pid = N_PID if features.has_pid else 0
        with torch.random.fork_rng(devices=[]):  # the first weights are drawn; the user's generator stays
            return build_network(
                model["arch"], model["dim"], len(self.class_names), features.n_features, n_pid, model
            )


def finished_run(path: Path) -> FinishedRun:
    """Read a finished run or pretraining and compare all its files with their checksums.

    Parameters
    ----------
    path : the run directory, ``multirun/<study>/<subset>/dim=<d>/seed=<s>[/<overrides>]``, or that of a
        pretraining, ``multirun/backbones/<name>``

    Raises
    ------
    UsageError
        There is no run, it is not finished, or one of its files is damaged.
    """
    try:
        done = read_either(path)
        if done is None:
            raise UsageError(_why_not(path))
        config = read_config(path)
    except (DamagedFile, FileNotFoundError) as error:
        raise UsageError(f"{error}; {_WAY_OUT}") from error
    if not done.verified:
        log.warning("%s is of an earlier version: its files could not be verified", path)
    data = config.get("data", {})
    if problem := next(problems(DataSettings, data, "data."), None):
        raise UsageError(f"{path / CONFIG}: {problem}; use the version of jetscale that made the run")
    phase = "pretrain" if isinstance(done.record, PretrainRecord) else "finetune"
    name = config.get(phase, {}).get("dataset")
    if "model" not in config or name is None:
        raise UsageError(f"{path / CONFIG} lacks the key model or {phase}.dataset; {_WAY_OUT}")
    return FinishedRun(path, done.record, config, DataSettings(**data), DATASETS[name])


def _why_not(path: Path) -> str:
    if not path.is_dir():
        return f"{path}: no such folder; give a run directory, {_FORM}"
    if any((path / mark).exists() for mark in MARKS):
        return f"{path}: the run is not finished ({DONE} is missing); start the same command again"
    below = sorted(
        found.parent
        for found in path.glob(f"**/{DONE}")
        if NOT_RUNS.isdisjoint(found.relative_to(path).parts)  # copies for W&B lack the weights
    )
    hint = f"; finished runs below it: {', '.join(map(str, below[:3]))}" if below else ""
    return f"{path}: no run directory ({_FORM}){hint}"

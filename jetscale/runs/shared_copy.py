"""A copy of a finished run directory that may leave this machine: without weights, paths shortened.

W&B keeps it among the files of a run, in an offline folder too. It is a run directory like any other, with
checksums of its own in its ``done.json``, so that the analysis reads it as it reads a local run: the same
losses and test blocks, to the last bit.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import yaml

from jetscale.common.masking import tree_without_folders, without_folders
from jetscale.runs.done import read_done, write_done
from jetscale.runs.layout import BLOCKS, CONFIG, DONE, METRICS
from jetscale.runs.record import RunRecord

COPIED = (CONFIG, METRICS, BLOCKS, DONE)
"""Files of a copy; a run without a test loss along training has no `BLOCKS`."""


def write_shared_copy(directory: Path, target: Path) -> None:
    """Copy the finished run in `directory` to the new folder `target`.

    Parameters
    ----------
    directory : a finished run directory, whose secrets are masked already
    target : must not exist

    Raises
    ------
    DamagedRun
        A file of the run is damaged.
    ValueError
        The run is not finished.
    """
    done = read_done(directory)
    if done is None:
        raise ValueError(f"{directory} is not finished")
    target.mkdir(parents=True)
    for name in (METRICS, BLOCKS):
        if (directory / name).is_file():
            shutil.copyfile(directory / name, target / name)
    settings = yaml.safe_load((directory / CONFIG).read_text())
    (target / CONFIG).write_text(yaml.safe_dump(tree_without_folders(settings), sort_keys=False))
    write_done(target, _without_folders(done.record), done.identity or "")


def _without_folders(record: RunRecord) -> RunRecord:
    pretrain, jets_from = record.pretrain, record.jets_from
    if pretrain is not None and pretrain.path is not None:
        pretrain = replace(pretrain, path=without_folders(pretrain.path))
    if jets_from is not None:
        jets_from = {name: replace(jets, dir=without_folders(jets.dir)) for name, jets in jets_from.items()}
    return replace(record, pretrain=pretrain, jets_from=jets_from)

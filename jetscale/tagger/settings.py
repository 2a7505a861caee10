"""Settings of ``python -m jetscale.tagger predict``, ``evaluate`` and ``export``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from jetscale.common.fields import COUNT, SEED, OneOf, Range

_WEIGHTS = OneOf("", "raw", "ema")


@dataclass
class Predict:
    """Score jets with the tagger of a finished run: one row a jet, in order.

    Columns: file and row (where the jet is), label (its published label; only where every file has labels),
    and score_CLASS for each class.

    Attributes
    ----------
    run : the run directory, multirun/<study>/<subset>/dim=<d>/seed=<s>[/<overrides>]
    files : jet files, ROOT, parquet or HDF5: a file, a folder, a pattern ('data/*.root'), or several with
        commas between; labels are not needed
    out : what to write, a .parquet or .root file
    weights : raw or ema (the average over the last steps); empty: ema where the run kept one
    """

    run: str = ""
    files: str = ""
    out: str = "scores.parquet"
    weights: Annotated[str, _WEIGHTS] = ""


@dataclass
class Evaluate:
    """How well the tagger of a finished run classifies jets, with bootstrap errors.

    Accuracy, AUC and background rejections; writes evaluate.json, and the figures roc and confusion.

    Attributes
    ----------
    run : the run directory, multirun/<study>/<subset>/dim=<d>/seed=<s>[/<overrides>]
    files : labelled jet files of the run's dataset, as for predict; empty: the run's own test split
    out : folder to write to; empty: RUN/evaluation
    weights : raw or ema (the average over the last steps); empty: ema where the run kept one
    jets : take the first so many jets; 0: all of them, also where the run was tested on fewer (eval.jets)
    dir : folder or URL of the run's jets; empty: where they were when it was made
    store : folder of packed stores; empty: as when it was made, or below dir
    replicates : bootstrap samples behind each error
    seed : of the bootstrap
    """

    run: str = ""
    files: str = ""
    out: str = ""
    weights: Annotated[str, _WEIGHTS] = ""
    jets: Annotated[int, Range(0, COUNT.high)] = 0
    dir: str = ""
    store: str = ""
    replicates: Annotated[int, Range(2, 100_000)] = 100
    seed: Annotated[int, SEED] = 0


@dataclass
class Export:
    """Write the network of a finished run for other programs.

    Writes model.onnx, model.pt2 (torch.export), backbone.pt2 (all but the head, to be trained on),
    model.safetensors (the weights) and README.md (a model card); model.onnx and backbone.pt2 are run and
    compared with the network before they get their names. Needs the extra `export`.

    Attributes
    ----------
    run : the run directory, multirun/<study>/<subset>/dim=<d>/seed=<s>[/<overrides>], or that of a
        pretraining, multirun/backbones/<name>
    out : folder to write to; empty: RUN/export
    weights : raw or ema (the average over the last steps); empty: ema where the run kept one
    """

    run: str = ""
    out: str = ""
    weights: Annotated[str, _WEIGHTS] = ""

"""How well a tagger classifies labelled jets: table, figures and ``evaluate.json``.

Shapes: J jets, K classes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table

from jetscale.common import cli
from jetscale.common.files import write_json
from jetscale.common.roc import BACKGROUND
from jetscale.common.usage import UsageError
from jetscale.jets.datasets.base import Dataset
from jetscale.jets.errors import JetDataError
from jetscale.jets.evaluation import EvalSet
from jetscale.jets.settings import DataSettings
from jetscale.jets.stores.duplicates import known_sketches
from jetscale.jets.stores.packed_jets import pack
from jetscale.jets.stores.request import store_request
from jetscale.jets.stores.sketches import NOTHING, as_text, shared, smallest
from jetscale.runs.record import PretrainRecord
from jetscale.tagger.figures import draw_confusion, draw_roc
from jetscale.tagger.finished_run import FinishedRun
from jetscale.tagger.load import BATCH, Scores, Tagger, load
from jetscale.tagger.metrics import Bootstrap, Measures, measure
from jetscale.tagger.settings import Evaluate
from jetscale.tagger.sources import Labels, files_named, open_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelled:
    """Scored jets with labels.

    Attributes
    ----------
    scores_JK : (J, K) float32, probabilities
    labels_J : (J,) int64, class numbers
    source : where the jets were, for ``evaluate.json``
    """

    scores_JK: Scores
    labels_J: npt.NDArray[np.int64]
    source: dict[str, Any]


def evaluate(settings: Evaluate) -> dict[str, Any]:
    """Measure the tagger of a run, and write and print the result.

    Returns
    -------
    What ``evaluate.json`` holds.

    Raises
    ------
    UsageError, JetDataError
        The run or the jets cannot be used: jets without labels, of another dataset, or others than those that
        the run was tested on.
    """
    tagger = load(settings.run, settings.weights or None)
    jets = _of_files(tagger, settings) if settings.files else _of_the_run(tagger, settings)
    names = tagger.class_names
    measures = Measures(jets.scores_JK, jets.labels_J, names)
    found = measure(measures, Bootstrap(len(jets.labels_J), settings.replicates, settings.seed))
    out = Path(settings.out) if settings.out else tagger.run.path / "evaluation"
    counts_KK = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts_KK, (jets.labels_J, jets.scores_JK.argmax(axis=1)), 1)
    content = {
        "run": str(tagger.run.path),
        "weights": tagger.weights,
        "jets": len(jets.labels_J),
        "source": jets.source,
        "classes": list(names),
        "jets_of_class": dict(zip(names, counts_KK.sum(axis=1).tolist(), strict=True)),
        "settings": asdict(settings),
        "metrics": found,
        "confusion": counts_KK.tolist(),
    }
    write_json(out / "evaluate.json", content)
    draw_roc(measures, out)
    draw_confusion(counts_KK, names, out)
    _print(content, out)
    return content


def _of_the_run(tagger: Tagger, settings: Evaluate) -> Labelled:
    """Jets of the run's own test split, which must be those that it was tested on."""
    run = tagger.run
    if isinstance(run.record, PretrainRecord):
        raise UsageError(
            f"{run.path}: a pretraining is not tested on jets; name labelled files of {run.dataset.title} "
            "(files=...)"
        )
    data = _data(run, settings)
    tested = run.config["eval"]["jets"]
    try:
        fingerprint = EvalSet(data, run.dataset.name, n_jets=tested).fingerprint
        jets = EvalSet(data, run.dataset.name, n_jets=settings.jets or None)
    except JetDataError as error:
        raise UsageError(
            f"{error} (the test jets of {run.path}; dir=FOLDER names another place of the data, "
            "files=... other jets)"
        ) from error
    expected = (run.record.data or {}).get("test")
    if expected is not None and fingerprint != expected:
        raise UsageError(
            f"{data.dir}: its {run.dataset.title} test jets are not those that {run.path} was tested on "
            "(their fingerprint differs); name the folder that was used (dir=FOLDER), or measure these with "
            "files=..."
        )
    parts, labels = [], []
    for batch in jets.batches(BATCH):
        parts.append(tagger.score_batch(batch))
        labels.append(batch.labels_B.numpy())
    source = {"split": "test", "dir": data.dir, "tested_jets_verified": expected is not None}
    return Labelled(np.concatenate(parts), np.concatenate(labels), source)


def _data(run: FinishedRun, settings: Evaluate) -> DataSettings:
    """The data of the run, perhaps in another place now."""
    here, store = settings.dir, settings.store
    return replace(run.data, dir=here or run.data.dir, store=store or (None if here else run.data.store))


def _of_files(tagger: Tagger, settings: Evaluate) -> Labelled:
    """Labelled jets of files; those whose label belongs to no class are left out with a warning."""
    run = tagger.run
    class_of_label = np.array(run.dataset.label_map(run.data.qcd_labels).class_of_label)
    paths = files_named(settings.files)
    _refuse_a_file_twice(paths)
    _warn_of_files(run, paths)
    parts = [np.empty((0, len(tagger.class_names)), np.float32)]
    labels, without_class = [np.empty(0, np.int64)], 0
    trained = _train_split(run, settings)
    sketches: dict[str, str] = {}
    for path in paths:
        sketch = NOTHING
        with open_file(path, tagger.inputs.columns, run.dataset, Labels.NEEDED) as opened:
            if opened.dataset is not run.dataset:
                what = "no dataset" if opened.dataset is None else opened.dataset.title
                raise UsageError(
                    f"{path}: its jets are of {what}, the classes of the run are those of {run.dataset.title}"
                )
            if opened.label_names is None:
                raise UsageError(f"{path}: has no labels, which evaluate needs; predict does without them")
            for raw in opened.chunks:
                class_B = class_of_label[raw.labels]
                parts.append(tagger.score_chunk(raw)[class_B >= 0])
                labels.append(class_B[class_B >= 0])
                without_class += int((class_B < 0).sum())
                if trained:
                    sketch = smallest(sketch, pack(raw, tagger.inputs.features))
        sketches[str(path)] = as_text(sketch)
    scores_JK, labels_J = np.concatenate(parts), np.concatenate(labels)
    if without_class and len(labels_J):
        log.warning(
            "%s of %s jets are left out: their labels belong to no class of the run (data.qcd_labels=%s)",
            f"{without_class:,}",
            f"{without_class + len(labels_J):,}",
            run.data.qcd_labels,
        )
    if not len(labels_J):
        raise UsageError(
            f"{settings.files}: none of its {without_class:,} jets belongs to a class of the run "
            f"(data.qcd_labels={run.data.qcd_labels}); name other files"
        )
    if settings.jets > len(labels_J):
        raise UsageError(f"jets={settings.jets}: the files have {len(labels_J):,} jets")
    kept = settings.jets or len(labels_J)
    _warn_of_trained_jets(run.dataset, sketches, trained)
    _warn_of_lost_classes(labels_J, kept, tagger.class_names)
    source = {"files": [str(path) for path in paths], "jets_of_no_class_left_out": without_class}
    return Labelled(scores_JK[:kept], labels_J[:kept], source)


def _train_split(run: FinishedRun, settings: Evaluate) -> Mapping[str, str]:
    """Sketches of the files of the run's train split; none where its packed store is not on this machine."""
    try:
        return known_sketches(store_request(_data(run, settings), run.dataset.name, "train"))
    except JetDataError:  # the folder of the stores is remote
        return {}


def _warn_of_files(run: FinishedRun, paths: list[Path]) -> None:
    """Files whose jets are others than those that the run is meant to be measured on."""
    if run.data.selection != "none":
        log.warning(
            "the run was made with data.selection=%s; the files are measured as they are", run.data.selection
        )
    if seen := [path for path in paths if _split_of(path, run.dataset) == "train"]:
        log.warning(
            "%d of %d files, %s first, are of the train split by their names: jets that the run was trained "
            "on are classified better than others",
            len(seen),
            len(paths),
            seen[0],
        )


def _warn_of_trained_jets(dataset: Dataset, sketches: Mapping[str, str], trained: Mapping[str, str]) -> None:
    """Files whose jets are in the train split too, whatever their names.

    Parameters
    ----------
    dataset : of the files
    sketches, trained : of the files that are measured, and of those of the train split, by name
    """
    named = {path for path in sketches if _split_of(Path(path), dataset) == "train"}
    seen = [pair for pair in shared(sketches, trained) if pair[0] not in named]
    if seen:
        log.warning(
            "%d of %d files have jets of the train split, %s those of %s first, whatever their names say: "
            "jets that the run was trained on are classified better than others",
            len({path for path, _ in seen}),
            len(sketches),
            *seen[0],
        )


def _warn_of_lost_classes(labels_J: npt.NDArray[np.int64], kept: int, names: tuple[str, ...]) -> None:
    """Classes that have jets only behind the first `kept`."""
    if lost := sorted(set(labels_J[kept:].tolist()) - set(labels_J[:kept].tolist())):
        some = ", ".join(names[label] for label in lost[:5]) + (", ..." if lost[5:] else "")
        log.warning(
            "jets=%d: the first jets of the files hold none of %s, which come later: where each file has one "
            "class, the first jets are no sample of all; leave jets= out",
            kept,
            some,
        )


def _split_of(path: Path, dataset: Dataset) -> str | None:
    """Split of a file by its published name; None for another name."""
    try:
        return dataset.file_of(path.name).split
    except ValueError:
        return None


def _refuse_a_file_twice(paths: list[Path]) -> None:
    """Jets that count twice change every mean, and make errors too small."""
    first: dict[tuple[int, int], Path] = {}
    for path in paths:
        status = path.stat()
        same = first.setdefault((status.st_dev, status.st_ino), path)
        if same is not path:
            raise UsageError(f"{path}: the same file as {same}, its jets would count twice; name it once")


def _print(content: dict[str, Any], out: Path) -> None:
    metrics = content["metrics"]
    console = cli.console(100)
    console.print(
        f"{content['run']}: {content['weights']} weights, {content['jets']:,} jets",
        soft_wrap=True,
    )
    totals = Table("metric", "value", "sd")
    for key in ("loss", "accuracy", "auc_ovr", "auc_ovo"):
        if key in metrics:
            totals.add_row(key, *(_number(metrics[key][part], ".5f") for part in ("value", "sd")))
    classes = Table(
        "class", "jets", "AUC against the rest", "signal kept", f"{BACKGROUND} rejection", "rests on",
    )  # fmt: skip
    for name in content["classes"]:
        area, cut = metrics.get(f"auc_{name}"), metrics.get(f"rejection_{name}")
        classes.add_row(
            name,
            f"{content['jets_of_class'][name]:,}",
            f"{area['value']:.4f} ± {_number(area['sd'], '.4f')}" if area else "",
            f"{cut['signal_efficiency']:.1%}" if cut else "",
            _told(cut) if cut else "",
            f"{cut['background_jets_kept']:,} of {cut['background_jets']:,}" if cut else "",
        )
    console.print(totals)
    console.print(classes)
    console.print(f"{out}: evaluate.json, roc.svg, confusion.svg", soft_wrap=True)


def _told(cut: dict[str, Any]) -> str:
    if cut["value"] is None:
        return f"no {BACKGROUND} jet is kept"
    sd = "?" if cut["sd"] is None else _rounded(cut["sd"], 2)
    return f"{_rounded(cut['value'], 3)} ± {sd}"


def _rounded(value: float, digits: int) -> str:
    """`value` with so many significant digits, and no exponent below a million."""
    return f"{float(f'{value:.{digits}g}'):,g}"


def _number(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)

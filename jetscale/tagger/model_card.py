"""The model card: what an exported network is, what it was made of, what it cost, and how well it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from jetscale.runs.record import PhaseRecord, PretrainRecord, RunRecord
from jetscale.tagger.finished_run import FinishedRun
from jetscale.tagger.load import Tagger

HEADING = "# Jet tagger: "
"""Beginning of every model card."""


def model_card(tagger: Tagger) -> str:
    """Markdown with inputs, classes, data, composition, compute and losses, from the run's own records."""
    return "\n".join(_lines(tagger)) + "\n"


def _lines(tagger: Tagger) -> Iterator[str]:
    run, features = tagger.run, tagger.inputs.features
    yield f"{HEADING}{_title(run.record, run.path)}"
    yield ""
    n_classes = len(tagger.class_names)
    yield f"A `{tagger.network.arch}` network of width {tagger.network.dim} for the {n_classes} classes of"
    yield f"{run.dataset.title}, trained with jetscale{_version(run.record)}. Its weights are"
    kind = "the average over the last steps" if tagger.weights == "ema" else "those after the last step"
    yield f"{kind} (`{tagger.weights}`)."
    yield ""
    yield "## Inputs and outputs"
    yield ""
    yield "`model.onnx`, `model.pt2` and `backbone.pt2` take jets padded to any length, in any number:"
    yield ""
    yield f"- `x` (jets, constituents, {features.n_features}) float32, the columns below, not standardised;"
    if features.has_pid:
        yield "- `pid` (jets, constituents) int64: 1 and 2 hadrons of charge -1 and +1, 3 neutral hadron,"
        yield "  4 photon, 5 and 6 electron and positron, 7 and 8 muons of charge -1 and +1, 0 padding;"
    else:
        yield "- `pid` (jets, constituents) int64, not used by this network: give zeros;"
    yield "- `mask` (jets, constituents) bool, True for constituents; `x` may be anything elsewhere."
    yield ""
    yield f"At most {tagger.inputs.max_constituents} constituents, the leading ones in pT. In training the"
    yield "columns were rounded to half precision."
    yield ""
    yield "| column | definition |"
    yield "|---|---|"
    for name, formula in features.columns:
        flipped = name == "part_deta" and tagger.inputs.undo_deta_flip
        yield f"| {name} | {formula}{', times the sign of jet_eta' if flipped else ''} |"
    yield ""
    yield "The output of the first two is a probability for each class, in this order:"
    yield f"{', '.join(tagger.class_names)}."
    yield f"That of `backbone.pt2` is the {tagger.network.dim} numbers of each jet that the last layer reads."
    yield ""
    yield from _training(run)


def _title(record: RunRecord | PretrainRecord, path: Path) -> str:
    if isinstance(record, PretrainRecord):
        return f"pretraining {path.name}"
    return f"{record.subset}, width {record.dim}, seed {record.seed}"


def _version(record: RunRecord | PretrainRecord) -> str:
    known = record.versions if isinstance(record, RunRecord) else None
    return f" {known['jetscale']}" if known and "jetscale" in known else ""


def _training(run: FinishedRun) -> Iterator[str]:
    record, config = run.record, run.config
    yield "## Training"
    yield ""
    yield "| phase | dataset | jets | steps | batch | FLOPs (6 N 40 jets) | seconds |"
    yield "|---|---|---|---|---|---|---|"
    if isinstance(record, PretrainRecord):
        yield _phase("pretraining", run.dataset.name, record)
    else:
        if record.pretrain is not None:
            yield _phase("pretraining", str(config["pretrain"].get("dataset")), record.pretrain)
        yield _phase("fine-tuning", run.dataset.name, record)
    yield ""
    composition = (config.get("pretrain") or {}).get("composition")
    yield f"Pretraining composition: `{json.dumps(composition)}`" if composition else "Trained from scratch."
    yield ""
    counts = ", ".join(f"{kind} {value:,.0f}" for kind, value in (record.n_params or {}).items())
    yield f"Parameters: {counts}."
    if isinstance(record, PretrainRecord):
        yield ""
        yield f"Jets: fingerprint `{(record.data or '')[:16]}`. A pretraining is not tested."
        return
    yield ""
    for split, jets in (record.jets_from or {}).items():
        yield f"- {split}: fingerprint of the files `{jets.fingerprint[:16]}`"
    yield ""
    yield "## Test loss"
    yield ""
    yield "| weights | loss (nats) | accuracy | test jets |"
    yield "|---|---|---|---|"
    for weights, final in (record.final or {}).items():
        accuracy = "" if final.accuracy is None else f"{final.accuracy:.4f}"
        jets_told = "" if final.jets is None else f"{final.jets:,}"
        yield f"| {weights} | {final.loss:.5f} | {accuracy} | {jets_told} |"


def _phase(name: str, dataset: str, phase: PhaseRecord) -> str:
    cells = [
        "" if value is None else format(value, form)
        for value, form in (
            (phase.jets, ",.0f"), (phase.steps, ",d"), (phase.batch_size, ",d"), (phase.flops, ".3g"),
            (phase.seconds, ",.0f"),
        )
    ]  # fmt: skip
    return f"| {name} | {dataset} | {' | '.join(cells)} |"

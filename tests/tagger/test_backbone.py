"""A pretraining put to use: as a tagger of its own classes, and fine-tuned by somebody else's script."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import jetscale
from jetscale.common.usage import UsageError
from jetscale.jets.inputs import Inputs
from jetscale.runs.record import PretrainRecord
from jetscale.tagger.__main__ import main
from jetscale.tagger.load import BATCH
from jetscale.tagger.sources import open_file
from tests.tagger.test_page import BACKBONE


def script() -> list[str]:
    """The two parts of the script in docs/tagger.md, made for the tests' width."""
    parts = re.findall(r"```python\n(.*?)```", BACKBONE, re.DOTALL)
    assert len(parts) == 2
    assert "torch.nn.Linear(64, 2)" in parts[1]
    assert "max_epochs=3" in parts[1]  # of 40 jets here, one batch each
    return [part.replace("Linear(64, 2)", "Linear(8, 2)").replace("=3)", "=40)") for part in parts]


def test_it_is_a_tagger_of_the_classes_that_it_was_pretrained_on(pretraining: Path, lab: Path) -> None:
    tagger = jetscale.load(pretraining)
    assert isinstance(tagger.run.record, PretrainRecord)
    assert len(tagger.class_names) == 188
    scores = tagger.scores(lab / "data/JetClassII")
    assert scores.shape == (490, 188)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)
    with pytest.raises(UsageError, match=r"a pretraining is not tested on jets; name labelled files"):
        main(["evaluate", f"run={pretraining}"])


@pytest.mark.filterwarnings(r"ignore:.*LeafSpec.* is deprecated:FutureWarning")  # in torch.export
@pytest.mark.filterwarnings(r"ignore:.*(does not have many workers|log_every_n_steps|tensorboard|srun)")
def test_its_export_is_fine_tuned_by_the_script_of_the_page(
    pretraining: Path, lab: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for package in ("onnxruntime", "onnxscript", "safetensors"):
        pytest.importorskip(package, reason="pip install 'jetscale[export]'")
    main(["export", f"run={pretraining}", f"out={tmp_path}/export"])
    card = (tmp_path / "export/README.md").read_text()
    assert f"# Jet tagger: pretraining {pretraining.name}" in card
    assert "A pretraining is not tested." in card
    own = jetscale.load(pretraining)

    (tmp_path / "data").symlink_to(lab / "data")
    monkeypatch.chdir(tmp_path)
    inputs, training = script()
    needed = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(inputs + training))
        for name in (
            [one.name for one in node.names] if isinstance(node, ast.Import)
            else [node.module] if isinstance(node, ast.ImportFrom) else []
        )
    }  # fmt: skip
    assert needed == {"awkward", "lightning", "numpy", "torch", "uproot"}
    assert len([line for line in training.splitlines() if line]) <= 22  # of which two import
    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(inputs, names)

    # the script's inputs are those of the run, up to half precision, and its backbone reads them alike
    path = lab / "data/JetClass/Pythia/train_100M/TTBar_000.root"
    x, pid, mask = names["padded"](path)
    wanted = Inputs(own.inputs.features, 128, undo_deta_flip=False)
    with open_file(path, wanted.columns, own.run.dataset) as opened:
        (raw,) = opened.chunks
    (batch,) = wanted.batches(raw, BATCH)
    features = wanted.features
    ours = batch.x_TF.numpy() * np.array(features.spread) + np.array(features.centre)
    assert torch.equal(mask.sum(1), batch.lengths_B)
    assert torch.equal(pid[mask], batch.pid_T)
    np.testing.assert_allclose(x[mask].numpy(), ours, atol=2e-3, rtol=2e-3)
    backbone = torch.export.unflatten(torch.export.load("export/backbone.pt2"))
    with torch.no_grad():
        scores = own.network.head(backbone(x, pid, mask)).softmax(1).numpy()
    np.testing.assert_allclose(scores, own.score_batch(batch), atol=1e-3)

    exec(training, names)
    tagger = names["tagger"]
    before, after = dict(backbone.named_parameters()), dict(tagger.backbone.named_parameters())
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)  # each weight was trained ...
    assert all(
        (before[name] - after[name]).abs().max() < 0.1 for name in before
    )  # ... from the pretrained one
    jets, labels = names["jets"].tensors[:3], names["labels"]
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(tagger.head(one(*jets)), labels)
            for one in (backbone, tagger.backbone)
        ]
    assert losses[1] < 0.95 * losses[0]

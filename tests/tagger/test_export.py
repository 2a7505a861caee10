"""Exported networks give the probabilities of the packed one, in any number of jets of any length."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jetscale.common.usage import UsageError
from jetscale.jets.inputs import Inputs
from jetscale.model.network import build_network
from jetscale.tagger import export as export_module
from jetscale.tagger.__main__ import main
from jetscale.tagger.load import BATCH, Tagger, load
from jetscale.tagger.model_card import model_card
from jetscale.tagger.padded import PaddedTagger
from jetscale.tagger.sources import open_file


def padded_jets(tagger: Tagger, path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Jets of a file as somebody else would pad them, and their scores by the packed network."""
    features = tagger.inputs.features
    with open_file(path, tagger.inputs.columns, tagger.run.dataset) as opened:
        (raw,) = opened.chunks
    (batch,) = tagger.inputs.batches(raw, BATCH)
    lengths = batch.lengths_B.numpy()
    x = np.full(
        (len(lengths), lengths.max(), features.n_features), np.nan, np.float32
    )  # padding means nothing
    pid = np.zeros(x.shape[:2], np.int64)
    mask = np.arange(lengths.max()) < lengths[:, None]
    x[mask] = batch.x_TF.numpy() * features.spread + features.centre
    pid[mask] = batch.pid_T.numpy()
    return {"x": x, "pid": pid, "mask": mask}, tagger.scores(path)


def test_all_forms_give_the_scores_of_the_packed_network(
    run: Path, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install '.[export]'")
    safetensors = pytest.importorskip("safetensors.torch", reason="pip install '.[export]'")
    pytest.importorskip("onnxscript", reason="pip install '.[export]'")
    (tmp_path / "README.md").write_text("# Jet tagger: an earlier card\n")
    main(["export", f"run={run}", f"out={tmp_path}", "weights=raw"])
    assert "ONNX Runtime differs by at most" in capsys.readouterr().out
    tagger = load(run, weights="raw")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    program = torch.export.load(tmp_path / "model.pt2").module()
    for path in (files[0], files[5]):  # other lengths than the example's
        jets, expected = padded_jets(tagger, path)
        assert np.ptp(expected) > 0.05
        (probabilities,) = session.run(None, jets)
        np.testing.assert_allclose(probabilities, expected, atol=1e-5)
        again = program(*(torch.from_numpy(one) for one in jets.values()))
        np.testing.assert_allclose(again.detach().numpy(), expected, atol=1e-5)
        one = {name: values[:1] for name, values in jets.items()}
        np.testing.assert_allclose(session.run(None, one)[0], expected[:1], atol=1e-5)
    weights = safetensors.load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in tagger.network.state_dict().items())
    card = (tmp_path / "README.md").read_text()
    final = json.loads((run / "done.json").read_text())["final"]["raw"]
    assert f"| raw | {final['loss']:.5f} | {final['accuracy']:.4f} | {final['jets']} |" in card
    assert "Trained from scratch." in card
    assert "QCD, Hbb, Hcc" in card


@pytest.mark.parametrize("arch", ["transformer", "deepsets"])
@pytest.mark.parametrize("feature_set", ["paper", "kinematics"])
def test_the_padded_form_is_the_packed_network(tagger: Tagger, arch: str, feature_set: str) -> None:
    features = tagger.run.dataset.feature_set(feature_set)
    torch.manual_seed(3)
    n_pid = 9 if features.has_pid else 0
    network = build_network(arch, 16, 10, features.n_features, n_pid, {"depth": 3, "head_dim": 8}).eval()
    network.head.weight.data.normal_(std=5)  # probabilities that are not all alike
    ours = replace(tagger, network=network, inputs=Inputs(features, 128, False))
    for shape in ((1, 1), (9, 33)):
        packed, padded = export_module._jets(ours, shape, seed=4)
        expected = ours.score_batch(packed)
        with torch.inference_mode():
            found = PaddedTagger(network, features)(*padded).numpy()
        np.testing.assert_allclose(found, expected, atol=5e-6)
        assert np.ptp(expected) > 0.1
        x, pid, mask = padded
        for padding in (np.nan, -np.inf, 1e30):
            x[~mask] = padding
            with torch.inference_mode():
                assert np.array_equal(PaddedTagger(network, features)(x, pid, mask).numpy(), found)


def test_the_card_names_an_input_that_is_not_used(tagger: Tagger) -> None:
    """The exported forms take it all the same."""
    assert "not used by this network" not in model_card(tagger)
    features = tagger.run.dataset.feature_set("kinematics")
    card = model_card(replace(tagger, inputs=Inputs(features, 128, False)))
    assert "- `pid` (jets, constituents) int64, not used by this network: give zeros;" in card


def test_a_readme_of_something_else_is_kept(run: Path, tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript", "safetensors"):
        pytest.importorskip(package, reason="pip install '.[export]'")
    (tmp_path / "README.md").write_text("# My project\n")
    with pytest.raises(UsageError, match=r"README.md: is there and is no model card.*\(out=FOLDER\)"):
        main(["export", f"run={run}", f"out={tmp_path}"])
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    (tmp_path / "README.md").unlink()
    (tmp_path / "model.onnx").write_text("another network")
    with pytest.raises(UsageError, match=r"model.onnx: is there, and no model card beside it"):
        main(["export", f"run={run}", f"out={tmp_path}"])
    (tmp_path / "README.md").mkdir()
    with pytest.raises(UsageError, match=r"README.md: is there and is no model card"):
        main(["export", f"run={run}", f"out={tmp_path}"])
    assert (tmp_path / "model.onnx").read_text() == "another network"


def test_what_is_refused(tagger: Tagger, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = build_network("deepsets", 8, 10, 8, 9, {})
    mine.arch = "mine"
    with pytest.raises(UsageError, match=r"model.arch=mine: only transformer and deepsets can be exported"):
        PaddedTagger(mine, tagger.inputs.features)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"export needs onnx, which is not installed: .*'\.\[export\]'"):
        main(["export", f"run={run}", f"out={tmp_path}/out"])
    assert not (tmp_path / "out").exists()

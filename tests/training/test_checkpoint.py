from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from jetscale.training.checkpoint import (
    CheckpointError,
    Checkpoints,
    read_checkpoint,
    require_arch,
    write_weights,
)


def state(step: int) -> dict[str, object]:
    return {"step": step, "model": {"w": torch.full((3,), float(step))}}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    made = Checkpoints(tmp_path, "finetune")
    made.save(state(1), 1)
    made.save(state(2), 2)
    return made


def test_the_newest_is_loaded_and_one_more_is_kept(checkpoints, tmp_path):
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded["step"] == 2
    assert torch.equal(loaded["model"]["w"], torch.full((3,), 2.0))
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["finetune.last.pt", "finetune.previous.pt"]


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_one_falls_back_to_the_one_before_and_says_so(checkpoints, tmp_path, damage, caplog):
    path = tmp_path / "finetune.last.pt"
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded["step"] == 1
    assert "finetune.last.pt is damaged" in caplog.text


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", range(6))
def test_killed_inside_a_save_there_is_a_whole_checkpoint_and_the_next_save_works(
    checkpoints, monkeypatch, at
):
    """Die at the n-th rename or removal of a save and at all that follow: what SIGKILL there leaves."""
    left = at

    def dying(original):
        def call(self, *arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return original(self, *arguments, **options)

        return call

    with monkeypatch.context() as patched:
        for name in ("replace", "unlink"):
            patched.setattr(Path, name, dying(getattr(Path, name)))
        with pytest.raises(Killed):
            checkpoints.save(state(3), 3)
    loaded = checkpoints.load()
    assert loaded is not None
    assert loaded["step"] in (2, 3)
    for path in checkpoints.directory.glob("*.pt"):  # wherever the kill fell, damage is found
        whole = path.read_bytes()
        for place in range(0, len(whole), 97):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            with pytest.raises(CheckpointError, match=path.name):
                read_checkpoint(path)
        path.write_bytes(whole)
    checkpoints.save(state(4), 4)
    assert checkpoints.load()["step"] == 4


def test_the_checksum_is_inside_and_torch_reads_the_file_all_the_same(checkpoints, tmp_path):
    path = tmp_path / "finetune.last.pt"
    path.with_suffix(".json").unlink()
    assert torch.load(path, weights_only=True)["step"] == 2
    assert zipfile.ZipFile(path).comment.startswith(b"xxh3_128:")
    assert checkpoints.load()["step"] == 2


def test_one_of_an_earlier_version_needs_its_json(checkpoints, tmp_path, caplog):
    path = tmp_path / "finetune.last.pt"
    torch.save(state(7), path)
    assert checkpoints.load()["step"] == 1  # the JSON beside it is of another one: the one before it
    assert "no checksum" in caplog.text
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps({"step": 7, "sha256": sha256}))
    assert checkpoints.load()["step"] == 7
    path.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match=r"finetune\.last\.pt .*has no checksum"):
        read_checkpoint(path)


def test_both_damaged_is_an_error_that_names_them(checkpoints, tmp_path):
    for path in tmp_path.glob("*.pt"):
        path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"finetune.last.pt.*finetune.previous.pt.*anew"):
        checkpoints.load()


def test_none_is_none_and_phases_are_apart(tmp_path, checkpoints):
    assert Checkpoints(tmp_path, "pretrain").load() is None
    checkpoints.remove()
    assert checkpoints.load() is None
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path}/ran",)

    path = tmp_path / "evil.pt"
    torch.save({"weights": Evil()}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(path)
    write_weights(path, {"weights": Evil()}, 3)  # with a checksum that fits
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_network_are_refused_and_older_ones_are_the_transformers(tmp_path):
    require_arch({"arch": "deepsets"}, "deepsets", tmp_path)
    require_arch({}, "transformer", tmp_path)
    with pytest.raises(CheckpointError, match=r"holds the weights of model.arch=transformer, .*=deepsets;"):
        require_arch({}, "deepsets", tmp_path)


def test_weights_come_back_to_the_last_bit(tmp_path):
    torch.manual_seed(0)
    weights = {"w": torch.randn(5, dtype=torch.float32)}
    write_weights(tmp_path / "final.pt", {"weights": weights, "average": None}, 3)
    assert torch.equal(read_checkpoint(tmp_path / "final.pt")["weights"]["w"], weights["w"])

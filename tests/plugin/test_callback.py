"""A callback of the user's own, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import TINY, killed_after, metrics_of

TOY_LAB = Path(__file__).parent / "toy_lab"
CALLBACK = "callbacks.norms={_target_: toy_lab.callback.GradientNorm, every: 10}"
TRUST = ("--trust", "toy_lab.callback")
CLIPPED = ("finetune.clip=0.01",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that a user works in, with her package in it."""
    (tmp_path / "toy_lab").symlink_to(TOY_LAB)
    return tmp_path


def norms_of(run: Path) -> dict[str, float]:
    norms: dict[str, float] = json.loads((run / "gradient_norm.json").read_text())
    return norms


@pytest.mark.slow
def test_it_sees_every_step_and_its_state_survives_a_kill(train, warm, folder, simulated_data):
    train(*TINY, *CLIPPED, f"hydra.run.dir={folder}/plain")
    train(*TINY, *CLIPPED, f"hydra.run.dir={folder}/watched", *TRUST, CALLBACK)
    norms = norms_of(folder / "watched")
    assert list(norms) == ["0", "10", "20", "30"]
    assert min(norms.values()) > 0.01, "the gradient as it is before it is clipped"
    # the callback looks and changes nothing, nor does the way in which it is called
    assert metrics_of(folder / "watched") == metrics_of(folder / "plain")

    words = [
        *TINY,
        *CLIPPED,
        f"data.dir={simulated_data}",
        f"hydra.run.dir={folder}/killed",
        *TRUST,
        CALLBACK,
    ]
    killed_after(warm, 25, words, folder / "none", folder / "killed")
    assert not (folder / "killed/gradient_norm.json").exists()
    train(*TINY, *CLIPPED, f"hydra.run.dir={folder}/killed", *TRUST, CALLBACK)
    assert norms_of(folder / "killed") == norms
    assert metrics_of(folder / "killed") == metrics_of(folder / "plain")


def test_without_trust_it_is_refused_with_the_line_that_helps(train, folder):
    refused = train(*TINY, CALLBACK, check=False)
    assert refused.returncode == 1
    assert "callbacks: norms._target_='toy_lab.callback.GradientNorm'" in refused.stderr
    assert "add --trust toy_lab to the command" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(folder.rglob("metrics.jsonl"))

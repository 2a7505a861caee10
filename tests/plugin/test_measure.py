"""A measure of the user's own, through the command line of composition."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

TOY_LAB = Path(__file__).parent / "toy_lab"


@pytest.mark.slow
def test_it_stands_in_the_table_and_in_the_file(warm, simulated_data: Path, tmp_path: Path) -> None:
    (tmp_path / "toy_lab").symlink_to(TOY_LAB)
    words = [
        "compare", f"dir={simulated_data}", f"store={tmp_path}/store", "jets=120", "draws=3", "names=[qcd]",
        f"out={tmp_path}/out", "--trust", "toy_lab.measure",
    ]  # fmt: skip
    done = warm.run("jetscale.composition", words, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "energy distance" in done.stdout
    measures = json.loads((tmp_path / "out/compare.json").read_text())["measures"]
    ours, reference = (measures[name]["energy_distance"]["value"] for name in ("qcd", "(downstream)"))
    assert 0 <= reference < 0.5 * ours, "other jets of the downstream classes are nearer than QCD"
    assert next(iter(measures["qcd"])) == "effective_classes"

"""Names of a run directory's files are written in `jetscale.runs.layout` and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import jetscale
from jetscale.common.config_safety import CONF
from jetscale.launch.hydra_setup import register
from jetscale.runs import layout
from jetscale.runs.layout import Place, backbone_name, place_of

SOURCE = Path(jetscale.__file__).parent
NAMES = (
    layout.CONFIG, layout.IDENTITY, layout.METRICS, layout.BLOCKS, layout.DONE, layout.FAILED,
    layout.TRACEBACK, layout.OWNER, layout.WANDB_ID, layout.SWEEP_PLAN, "final.pt", "/dim=", "/seed=",
    "-dim=",
)  # fmt: skip
OTHERS = {
    "jets/stores/building.py": layout.SWEEP_PLAN,  # a packed store that is being built has a plan too
    "common/config_safety.py": layout.CONFIG,  # a message of the lowest room, which knows no run directories
}


def texts(source: str) -> Iterator[str]:
    """Every string of a module but its docstrings."""
    tree = ast.parse(source)
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_no_other_module_writes_a_name_of_a_run_directory() -> None:
    found = {
        (module, name)
        for path in SOURCE.rglob("*.py")
        if (module := path.relative_to(SOURCE).as_posix()) != "runs/layout.py"
        for text in texts(path.read_text())
        for name in NAMES
        if name in text
    }
    assert found == set(OTHERS.items())
    assert layout.DONE in list(
        texts((SOURCE / "runs/layout.py").read_text())
    )  # the search finds what it should


@pytest.mark.parametrize("override", [(), ("finetune.lr=0.003",)])
def test_hydra_makes_the_path_of_a_place(override: tuple[str, ...]) -> None:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = ["budget=smoke", "+experiment=qcd", "model.dim=8", "seed=3", *override]
        config = compose("train", overrides=words, return_hydra_config=True)
    OmegaConf.update(config, "hydra.overrides.task", words, force_add=True)
    expected = Place(config.subset, 8, 3, *override)
    for made in (config.hydra.sweep.subdir, Path(config.hydra.run.dir).relative_to("multirun/smoke")):
        assert Path(made) == Path(expected.path)
        assert place_of(Path("multirun/smoke", made)) == expected


def test_places_and_paths_are_the_same() -> None:
    for place in (Place("qcd", 8, 0), Place("qcd", 8, 0, "finetune.lr=0.003,model.depth=2")):
        assert place_of(Path("/a/multirun/s", place.path)) == place
    for other in (
        "multirun/backbones/qcd-dim=8-seed=0-0123456789ab",
        "multirun/s/qcd/dim=8",
        "x/dim=a/seed=0",
    ):
        assert place_of(Path(other)) is None
    for subset, identity in (("qcd", "*"), ("*", 64 * "a")):
        assert Path(backbone_name("qcd", 8, 0, 64 * "a")).match(backbone_name(subset, 8, 0, identity))

"""A tagger for other programs: ONNX, torch.export, safetensors, and a model card.

Shapes: B jets, L constituents of the longest jet, F features.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from jetscale.common.files import atomic_path
from jetscale.common.usage import UsageError, install_extra
from jetscale.jets.batch import JetBatch
from jetscale.jets.features import N_PID
from jetscale.tagger.load import Tagger, load
from jetscale.tagger.model_card import HEADING, model_card
from jetscale.tagger.padded import PaddedBackbone, PaddedTagger
from jetscale.tagger.settings import Export

TOLERANCE = 1e-5
"""Largest difference of a probability between the exported and the packed network."""

Jets = tuple[Tensor, Tensor, Tensor]
"""x, pid and mask of padded jets."""
Probabilities = Callable[[Jets], npt.NDArray[np.float32]]

_INPUTS = ("x", "pid", "mask")
CARD = "README.md"
FILES = ("model.onnx", "backbone.pt2", "model.pt2", "model.safetensors")


def export(settings: Export) -> None:
    """Write all forms of a run's network into one folder.

    Raises
    ------
    UsageError
        The run cannot be used, a package is missing, the folder has a README.md that is no model card, the
        kind of network has no padded form, or the exported network gives other probabilities.
    """
    _packages()
    tagger = load(settings.run, settings.weights or None)
    out = Path(settings.out) if settings.out else tagger.run.path / "export"
    _refuse_other_files(out)
    features = tagger.inputs.features
    example = _jets(tagger, (3, 7), seed=0)[1]
    program = _exported(PaddedTagger(tagger.network, features).eval(), example)
    backbone = _exported(PaddedBackbone(tagger.network, features).eval(), example)
    with atomic_path(out / CARD) as aside:  # first: it shows the next export whose the other files are
        aside.write_text(model_card(tagger))
    with atomic_path(out / "model.onnx") as aside, atomic_path(out / "backbone.pt2") as aside_backbone:
        _write_onnx(program, aside)
        difference = _compared(tagger, _by_onnx_runtime(aside))
        torch.export.save(backbone, aside_backbone)
        _compared(tagger, _by_backbone(tagger, aside_backbone))
    with atomic_path(out / "model.pt2") as aside:
        torch.export.save(program, aside)
    with atomic_path(out / "model.safetensors") as aside:
        state = {name: value.contiguous() for name, value in tagger.network.state_dict().items()}
        aside.write_bytes(_package("safetensors.torch").save(state, metadata=_facts(tagger)))
    sys.stdout.write(
        f"{out}: model.onnx, model.pt2, backbone.pt2, model.safetensors, README.md; ONNX Runtime differs by "
        f"at most {difference:.1e} in a probability\n"
    )


def _packages() -> None:
    for name in ("onnx", "onnxruntime", "onnxscript", "safetensors.torch"):
        _package(name)


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            f"export needs {error.name or name}, which is not installed: {install_extra('export')}"
        ) from error


def _refuse_other_files(out: Path) -> None:
    """Refuse a folder with files of these names that no export has written: it would have left its card."""
    card = out / CARD
    if card.exists() and not (card.is_file() and card.read_bytes().startswith(HEADING.encode())):
        raise UsageError(
            f"{card}: is there and is no model card of a tagger; name another folder (out=FOLDER)"
        )
    there = [name for name in FILES if (out / name).exists()]
    if there and not card.exists():
        raise UsageError(
            f"{out / there[0]}: is there, and no model card beside it ({CARD}), so it may not be of an"
            " export; name another folder (out=FOLDER)"
        )


def _facts(tagger: Tagger) -> dict[str, str]:
    """What a reader of the weights alone needs, as safetensors stores it."""
    facts = {
        "model": tagger.run.config["model"],
        "classes": tagger.class_names,
        "features": tagger.inputs.features.definition(),
        "standardisation": tagger.inputs.features.standardisation,
        "max_constituents": tagger.inputs.max_constituents,
        "weights": tagger.weights,
    }
    return {key: json.dumps(value) for key, value in facts.items()}


def _jets(tagger: Tagger, shape: tuple[int, int], seed: int) -> tuple[JetBatch, Jets]:
    """Random jets, packed and padded: B jets of 1 to L constituents, the last one of L."""
    generator = torch.Generator().manual_seed(seed)
    features, (n_jets, longest) = tagger.inputs.features, shape
    lengths_B = torch.randint(1, longest + 1, (n_jets,), generator=generator)
    lengths_B[-1] = longest
    mask_BL = torch.arange(longest) < lengths_B[:, None]
    z_BLF = torch.randn(n_jets, longest, features.n_features, generator=generator)
    x_BLF = torch.tensor(features.centre) + z_BLF * torch.tensor(features.spread)
    pid_BL = torch.randint(1, N_PID, (n_jets, longest), generator=generator) * mask_BL
    packed = JetBatch(
        x_TF=((x_BLF - torch.tensor(features.centre)) / torch.tensor(features.spread))[mask_BL],
        pid_T=pid_BL[mask_BL] if features.has_pid else None,
        lengths_B=lengths_B,
        labels_B=torch.zeros(n_jets, dtype=torch.int64),
        positions_B=torch.arange(n_jets),
    )
    return packed, (x_BLF, pid_BL, mask_BL)


def _exported(padded: nn.Module, example: Jets) -> torch.export.ExportedProgram:
    jets, constituents = torch.export.Dim("jets"), torch.export.Dim("constituents")
    dynamic = tuple({0: jets, 1: constituents} for _ in example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own deprecations
        return torch.export.export(padded, example, dynamic_shapes=dynamic)


def _write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    for name in ("onnxscript", "torch.onnx._internal.exporter._registration"):  # of what is not installed
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own deprecations
        made = torch.onnx.export(
            program, dynamo=True, input_names=_INPUTS, output_names=["probabilities"], verbose=False
        )
    assert made is not None
    made.save(str(path), external_data=False)


def _by_onnx_runtime(path: Path) -> Probabilities:
    """Probabilities of padded jets by ONNX Runtime."""
    session = _package("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {one.name for one in session.get_inputs()}

    def probabilities(jets: Jets) -> npt.NDArray[np.float32]:
        given = {name: one.numpy() for name, one in zip(_INPUTS, jets, strict=True) if name in taken}
        found: npt.NDArray[np.float32] = session.run(None, given)[0]
        return found

    return probabilities


def _by_backbone(tagger: Tagger, path: Path) -> Probabilities:
    """Probabilities of padded jets by a backbone read back, and the head that it was written without."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own deprecations
        backbone = torch.export.unflatten(torch.export.load(path))
    head = tagger.network.get_submodule("head")

    @torch.inference_mode()
    def probabilities(jets: Jets) -> npt.NDArray[np.float32]:
        found: npt.NDArray[np.float32] = head(backbone(*jets)).softmax(dim=1).numpy()
        return found

    return probabilities


def _compared(tagger: Tagger, probabilities: Probabilities) -> float:
    """Largest difference of a probability between the exported and the packed network, on random jets.

    Raises
    ------
    UsageError
        It is more than `TOLERANCE`.
    """
    difference = 0.0
    for shape in ((1, 1), (5, 128), (64, 40)):
        packed, padded = _jets(tagger, shape, seed=1)
        difference = max(difference, float(np.abs(probabilities(padded) - tagger.score_batch(packed)).max()))
    if not difference <= TOLERANCE:
        raise UsageError(
            f"{tagger.run.path}: a probability of the exported network differs by {difference:.1e}, more "
            f"than {TOLERANCE:g}; nothing was written"
        )
    return difference

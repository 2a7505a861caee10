"""The data card ``DATACARD.md`` in the folder of simulated files: how they differ from the published ones."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from jetscale.common.files import atomic_path
from jetscale.jets.datasets.base import DATASETS
from jetscale.simulate import SIMULATOR_VERSION
from jetscale.simulate.output_files import manifests

_TEXT = """# Simulated jets in the {title} format

Made by jetscale's simulator, version {version}, not the published {title} dataset. Same columns, types,
names, cuts and truth labels; other events. Physics, formulas and sources: docs/simulation.md of jetscale.

| | here | published |
|---|---|---|
| events | Pythia 8 alone, 13 TeV, default tune and PDF | MadGraph matrix elements{mlm}, Pythia 8 |
| signal production | {production} | {published} |
| pile-up | none | {pileup} |
| primary vertex along the beam | {vertex} | the same |
| detector | vectorised parametrisation of the CMS-like Delphes card | Delphes 3 |
| jets | anti-kT R=0.8, {cuts} | the same |
| jets of one event | up to two and more, always in one file | {sharing} |

Use it to develop, test and compare models trained alike. Numbers from it are no measurement on {title}.

## Files
{files}
"""
_WORDS = {
    "jetclass": {
        "mlm": " (MLM matching for Z+jets)",
        "production": "A H with A made a second 125 GeV H; Z Z, W W, t t~, Z(nu nu) + one jet",
        "published": "H, W, Z with Z(nu nu); t t~; Z(nu nu) + one or two jets",
        "pileup": "none",
        "vertex": "at the origin",
        "cuts": "500 < pT < 1000 GeV, eta within 2",
        "sharing": "mostly one, two for t t~",
    },
    "jetclass2": {
        "mlm": " (QCD: Pythia 8 alone)",
        "production": "A H, H+ H-, A H2 with even masses 15-500 GeV and pT thresholds",
        "published": "h h, h+ h-, h1 h1 on a grid of the same range",
        "pileup": "50 interactions on average, PUPPI",
        "vertex": "Gaussian, 53 mm",
        "cuts": "pT > 200 GeV, eta within 2.5",
        "sharing": "several",
    },
}


def write_card(out: Path, dataset: str) -> Path:
    """Describe all simulated files of a dataset in ``DATACARD.md``.

    Parameters
    ----------
    out : data directory
    dataset : ``jetclass`` or ``jetclass2``

    Returns
    -------
    Path of the card.

    Raises
    ------
    UsageError
        There is a file that was not simulated.
    """
    folder = out / DATASETS[dataset].folder
    rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for manifest in manifests(out, dataset).values():
        rows[manifest["settings"]["process"], manifest["split"]].append(manifest)
    lines = [
        "| process | split | files | jets | seed | multiparton interactions |",
        "|---|---|---|---|---|---|",
    ]
    for (process, split), found in sorted(rows.items()):
        seeds = sorted({manifest["settings"]["seed"] for manifest in found})
        mpi = sorted({"on" if manifest["settings"]["mpi"] else "off" for manifest in found})
        jets = sum(manifest["jets"] for manifest in found)
        lines.append(
            f"| {process} | {split} | {len(found)} | {jets:,} | {', '.join(map(str, seeds))} "
            f"| {', '.join(mpi)} |"
        )
    card = folder / "DATACARD.md"
    text = _TEXT.format(
        title=DATASETS[dataset].title, version=SIMULATOR_VERSION, files="\n".join(lines), **_WORDS[dataset]
    )
    with atomic_path(card) as aside:
        aside.write_text(text)
    return card

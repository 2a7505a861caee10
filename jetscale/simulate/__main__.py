"""``python -m jetscale.simulate dataset=jetclass n_jets=100000``: Pythia to jet files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jetscale.common import cli
from jetscale.simulate.settings import Settings, n_workers, plan

PROGRAM = "python -m jetscale.simulate"


def main(argv: Sequence[str]) -> None:
    """Parse the settings, make the files, and report what was made."""
    settings = cli.parse(Settings, argv, PROGRAM)
    files = plan(settings)
    # FastJet, Pythia and uproot take a second to import: not for --help, nor for a mistake
    from jetscale.simulate.card import write_card
    from jetscale.simulate.output_files import Target, manifests
    from jetscale.simulate.production import simulate

    out = Path(settings.out)
    targets = [Target(out, file, jets, settings.seed, settings.mpi) for file, jets in files]
    made = simulate(targets, n_workers(settings), out)
    card = write_card(out, settings.dataset)
    jets = sum(target.jets for target in targets)
    sys.stdout.write(
        f"{len(targets)} files, {jets:,} jets in {card.parent} "
        f"({len(made)} new, {len(targets) - len(made)} kept); what they are: {card}\n"
    )
    asked = {target.path for target in targets}
    there = manifests(out, settings.dataset)
    others = [manifest["jets"] for path, manifest in there.items() if path not in asked]
    if others:
        sys.stdout.write(
            f"{len(others)} more files are there from before, {sum(others):,} jets; whoever reads "
            f"{card.parent} reads them too\n"
        )


if __name__ == "__main__":
    sys.exit(cli.run(main, PROGRAM))

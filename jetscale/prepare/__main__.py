"""Jet files to packed stores: ``python -m jetscale.prepare [key=value ...]``. Training does it by itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jetscale.common import cli
from jetscale.prepare.settings import PrepareSettings


def main(argv: Sequence[str]) -> None:
    """Make, or check, the stores that `argv` asks for."""
    settings = cli.parse(PrepareSettings, argv, "python -m jetscale.prepare")
    # imported here: `--help` needs neither readers nor compiled kernels
    from jetscale.prepare.stores import prepare

    prepare(settings)


if __name__ == "__main__":
    sys.exit(cli.run(main, "python -m jetscale.prepare"))

"""Public jet files: ``python -m jetscale.download dataset=NAME [key=value ...]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from jetscale.common import cli
from jetscale.download.settings import DownloadSettings

PROGRAM = "python -m jetscale.download"


def main(argv: Sequence[str]) -> None:
    """Fetch, list or check the files that `argv` asks for."""
    settings = cli.parse(DownloadSettings, argv, PROGRAM)
    # imported here: `--help` needs no client of a server
    from jetscale.download.command import download

    download(settings)


if __name__ == "__main__":
    sys.exit(cli.run(main, PROGRAM))

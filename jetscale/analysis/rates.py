"""`python -m jetscale.analysis.rates`: the best learning rate of every width, and a rule through them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from jetscale.analysis.settings import WEIGHTS
from jetscale.common.cli import parse, run
from jetscale.common.usage import UsageError

PROGRAM = "python -m jetscale.analysis.rates"


@dataclass
class Command:
    """Learning-rate rule of a sweep over finetune.lr x model.dim (x seed, x subset).

    Prints the best rate of every subset and width, and the override finetune.lr={base:..,dim:..,power:..} to
    paste; writes rates.json and figures/rates.svg. A lowest loss at the end of the scanned rates is a bound,
    no optimum.

    Attributes
    ----------
    path : the sweep's folder.
    out : folder to write to; empty: PATH/analysis.
    weights : raw or ema; empty: ema where the runs have it.
    """

    path: str = ""
    out: str = ""
    weights: Annotated[str, WEIGHTS] = ""


def main(argv: Sequence[str]) -> None:
    """Run the program.

    Raises
    ------
    UsageError
        See `analyse`; also a missing path.
    """
    command = parse(Command, argv, PROGRAM)
    if not command.path:
        raise UsageError("path=... is needed: the folder of a sweep over finetune.lr; see --help")
    out = Path(command.out) if command.out else Path(command.path) / "analysis"

    from jetscale.analysis.answers.rate_scan import analyse
    from jetscale.analysis.fitting.numbers import plain
    from jetscale.analysis.output.figures.rate_scans import draw_rates
    from jetscale.analysis.output.rate_table import show
    from jetscale.common import figure_style as style
    from jetscale.common.files import write_json

    found = analyse(Path(command.path), command.weights)
    write_json(out / "rates.json", plain(found.to_json()))
    with style.style():
        figure = style.save(draw_rates(found), out / "figures", "rates")
    show(found)
    sys.stdout.write(f"{out / 'rates.json'}\n{figure}\n")


if __name__ == "__main__":
    raise SystemExit(run(main, PROGRAM))

"""Settings of ``python -m jetscale.download``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from jetscale.common.config_safety import CONF
from jetscale.common.fields import Matches, OneOf, Range
from jetscale.jets.datasets.base import SPLITS

ALL = "all"

DATASET = OneOf("jetclass", "jetclass2")
BUDGET = OneOf(*sorted(path.stem for path in (CONF / "budget").glob("*.yaml")), ALL)
HOST = Matches(
    r"https?://[^\s/@?#]+(/[^\s@?#]*)?",
    "the address of a server, as https://mirror.example.org, without a user name or a password",
)


@dataclass
class DownloadSettings:
    """Fetch the public files of a dataset that a budget needs, compare their checksums, put them in place.

    Attributes
    ----------
    dataset : jetclass (Zenodo), or jetclass2 (Hugging Face; needs the extra `download`)
    budget : the files that the five subsets of the paper need under this budget (budget= of jetscale.train),
        or all: the whole dataset. Take all for compositions of single classes or windows: how many files
        they need is unknown before the jets are read
    split : train, val, test, or all that the budget reads (no budget reads val)
    dir : local folder with the datasets' folders inside: JetClass/, JetClassII/
    host : server, for a mirror; default zenodo.org, or huggingface.co (or what HF_ENDPOINT names)
    retries : attempts that may fail one after another before the command gives up
    dry : show what would be fetched, with sizes, and fetch nothing
    check : fetch nothing; compare the files that this command fetched with the checksums of that time
    """

    dataset: Annotated[str | None, DATASET] = None
    budget: Annotated[str, BUDGET] = "paper"
    split: Annotated[str, OneOf(*SPLITS, ALL)] = ALL
    dir: str = "data"
    host: Annotated[str | None, HOST] = None
    retries: Annotated[int, Range(0, 1_000)] = 6
    dry: bool = False
    check: bool = False

"""The documentation site: whole, without a warning, and with every key."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from jetscale.analysis.__main__ import Command as AnalysisCommand
from jetscale.analysis.plan import Command as PlanCommand
from jetscale.analysis.rates import Command as RatesCommand
from jetscale.common.cli import _keys
from jetscale.composition.settings import Compare, Show
from jetscale.download.settings import DownloadSettings
from jetscale.prepare.settings import PrepareSettings
from jetscale.simulate.settings import Settings as SimulateSettings
from jetscale.tagger.settings import Evaluate, Export, Predict
from jetscale.training.settings import TrainSettings
from tests.runs import quiet_environment

pytestmark = pytest.mark.xdist_group("docs")  # one build for all of them

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` makes it; notebooks, which take longer, are executed there alone."""
    out = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q", "-D", "nb_execution_mode=off"]
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [*build, "-c", "docs", ".", str(out)],
        cwd=REPO, env={**quiet_environment(), **proxies}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_every_page_is_there(site):
    sources = [*(REPO / "docs").glob("*.md"), *REPO.glob("studies/*/README.md"), REPO / "LOG.md"]
    sources += [REPO / "CONTRIBUTING.md", REPO / "CHANGELOG.md", REPO / "docs/api/index.md"]
    pages = {source.relative_to(REPO).with_suffix(".html") for source in sources}
    assert len(pages) > 12
    assert not {page for page in pages if not (site / page).is_file()}
    start = (site / "docs/index.html").read_text()
    for page in pages:
        assert page.name in start, f"{page} is not reached from the start"


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        TrainSettings,
        SimulateSettings,
        DownloadSettings,
        PrepareSettings,
        Compare,
        Show,
        Predict,
        Evaluate,
        Export,
        AnalysisCommand,
        PlanCommand,
        RatesCommand,
    ],
)
def test_the_configuration_page_names_every_key(site, settings):
    assert {key for key, _ in _keys(settings)} <= _documented(site)


def _documented(site: Path) -> set[str]:
    """First cells of the tables of keys."""
    html = (site / "docs/configuration.html").read_text()
    rows = re.findall(
        r"<tr[^>]*>\s*<td>(.*?)</td>\s*<td>.*?</td>\s*<td>.*?</td>\s*<td>(.*?)</td>", html, re.DOTALL
    )
    plain = [[unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in row] for row in rows]
    return {key for key, meaning in plain if meaning}


PAGES = [
    REPO / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "LOG.md",
        *sorted(map(str, (REPO / "docs").glob("*.md"))),
    )
]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_lines_fit_into_an_editor(path):
    text = re.sub(r"^( *)```.*?^\1```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)
    lines = [re.sub(r"https?://\S+", "", line) for line in text.splitlines() if not line.startswith("|")]
    assert not [line for line in lines if len(line) > 110]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere_on_a_forge_too(path):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(), flags=re.DOTALL)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert not [link for link in links if not (path.parent / link.partition("#")[0]).exists()]


@pytest.mark.slow
def test_every_choice_is_shown(site):
    html = (site / "docs/configuration.html").read_text()
    for path in (REPO / "conf").glob("*/**/*.yaml"):
        assert path.relative_to(REPO).as_posix() in html


@pytest.mark.slow
def test_pages_need_no_network(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"(https?:[^\"]*)\"", page.read_text()
        )
        assert not loaded, page


@pytest.mark.slow
def test_formulas_are_mathml(site):
    html = (site / "docs/method.html").read_text()
    assert html.count("<math") > 20
    assert "$" not in re.sub(r"<pre>.*?</pre>|<code.*?</code>|<script.*?</script>", "", html, flags=re.DOTALL)


def _rooms() -> list[str]:
    return sorted(path.parent.name for path in (REPO / "jetscale").glob("*/__init__.py"))


def test_the_architecture_names_every_room():
    text = (REPO / "docs/architecture.md").read_text()
    table = text.partition("## Rooms")[2].partition("\n## ")[0]
    imports = text.partition("## Imports")[2].partition("\n## ")[0]
    assert not [room for room in _rooms() if f"`{room}`" not in table]
    contracts = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["type"] == "layers")
    assert "\n".join(layers) in imports


def test_every_room_has_an_api_page():
    assert sorted(path.stem for path in (REPO / "docs/api").glob("*.rst")) == sorted([*_rooms(), "train"])


@pytest.mark.slow
def test_the_api_reference_has_every_module(site):
    html = "".join(path.read_text() for path in (site / "docs/api").glob("*.html"))
    modules = [path.relative_to(REPO).with_suffix("") for path in (REPO / "jetscale").rglob("*.py")]
    names = {".".join(path.parts).removesuffix(".__init__") for path in modules} - {"jetscale"}
    assert len(names) > 100
    assert not {
        name for name in names if f'id="module-{name}"' not in html and f"{name} is not shown" not in html
    }


def test_a_key_without_a_meaning_stops_the_build():
    errors: Any = pytest.importorskip("sphinx.errors", reason="the extra `docs` is not installed")
    sys.path.insert(0, str(REPO / "docs/_ext"))
    try:
        import settings_reference as reference
    finally:
        sys.path.pop(0)
    from dataclasses import dataclass

    @dataclass
    class Silent:
        """Settings.

        Attributes
        ----------
        said : a meaning
            on two lines
        """

        said: int = 0
        unsaid: int = 0

    with pytest.raises(errors.ExtensionError, match=r"the key 'unsaid' has no meaning"):
        list(reference.keys_of(Silent))

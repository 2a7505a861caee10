"""The documentation site: whole, without a warning, and with every key."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from jetscale.analysis.__main__ import Command as AnalysisCommand
from jetscale.analysis.plan import Command as PlanCommand
from jetscale.analysis.rates import Command as RatesCommand
from jetscale.common.cli import _keys
from jetscale.composition.settings import Compare, Show
from jetscale.prepare.settings import PrepareSettings
from jetscale.simulate.settings import Settings as SimulateSettings
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
        PrepareSettings,
        Compare,
        Show,
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


@pytest.mark.parametrize("page", ["README.md", *sorted(path.name for path in (REPO / "docs").glob("*.md"))])
def test_links_lead_somewhere_on_a_forge_too(page):
    path = REPO / page if page == "README.md" else REPO / "docs" / page
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


def test_a_key_without_a_meaning_stops_the_build():
    errors: Any = pytest.importorskip("sphinx.errors")
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

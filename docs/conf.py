"""The documentation site: ``make docs``.

The source folder is the repository, not docs/, so that a link between pages, notebooks, studies and code is
the same here and on a forge. Pages are docs/*.md, notebooks/*.ipynb (executed) and studies/*/README.md.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

DOCS = Path(__file__).resolve().parent
REPO = DOCS.parent
sys.path[:0] = [str(DOCS / "_ext"), str(REPO)]
# notebooks run commands of their own (python -m jetscale...) in processes of their own
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH", "")]))
os.environ.setdefault("WANDB_MODE", "offline")

gc.set_threshold(100_000)  # nearly all objects of a build stay; looking for others took a quarter of its time

project = "jetscale"
author = "The jetscale developers"
copyright = author  # noqa: A001  # Sphinx's name
version = release = version_of("jetscale")

extensions = ["myst_nb", "mathml", "settings_reference", "api_pages"]
root_doc = "docs/index"
# nothing else is walked through: data, runs and environments may be large
_PLACES = {"docs", "notebooks", "studies", "CONTRIBUTING.md", "CHANGELOG.md", "LOG.md"}
exclude_patterns = sorted(path.name for path in REPO.iterdir() if path.name not in _PLACES)
exclude_patterns += ["docs/_*", "notebooks/README.md", "notebooks/scratch", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]
nitpicky = True

default_role = "literal"  # `name` in a docstring is code; links are made where a signature names a class
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_use_type_comments = False  # there are none, and to look for them each source is parsed once more
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_use_ivar = True  # fields of a dataclass are listed once, in its docstring

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / ".jupyter_cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True

html_theme = "furo"
html_title = "jetscale"
html_math_renderer = "mathml"
html_additional_pages = {"index": "redirect.html"}
html_static_path = ["_static"]
html_css_files = ["jetscale.css"]
html_copy_source = False

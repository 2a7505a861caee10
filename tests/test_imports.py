"""The garbage collector, scipy.signal and transformers while packages are imported, and after it."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from jetscale.common.imports import _standing_in, quick_imports


@pytest.fixture(autouse=True)
def collecting() -> Iterator[None]:
    before, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.unfreeze()  # what tests/conftest.py has frozen
    gc.enable()
    yield
    (gc.enable if before else gc.disable)()
    if frozen:
        gc.freeze()


def test_it_collects_again_after_the_imports_and_after_one_that_fails() -> None:
    with quick_imports():
        assert not gc.isenabled()
        with quick_imports():
            pass
        assert not gc.isenabled(), "the inner one ended, the outer one did not"
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), quick_imports():
        __import__("no_such_module")
    assert gc.isenabled()
    gc.disable()
    with quick_imports():
        pass
    assert not gc.isenabled(), "as it was"


def test_what_was_made_is_old_and_still_collected() -> None:
    class Ring:
        itself: object

    with quick_imports():
        ring = Ring()
        ring.itself = ring
    assert any(one is ring for one in gc.get_objects(generation=2))
    assert not gc.get_freeze_count()
    number = id(ring)
    del ring
    gc.collect()
    assert not any(id(one) == number and isinstance(one, Ring) for one in gc.get_objects())


def test_what_the_caller_has_frozen_stays_frozen() -> None:
    """In a process of its own: to freeze is to keep for ever."""
    program = (
        "import gc; from jetscale.common.imports import quick_imports\n"
        "gc.freeze(); frozen = gc.get_freeze_count()\n"
        "with quick_imports(): import fractions\n"
        "assert gc.get_freeze_count() == frozen > 0 and gc.isenabled()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def _run(program: str) -> None:
    """In a process of its own, which has imported nothing yet."""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture
def transformers(tmp_path: Path) -> str:
    """A package of that name and version; the start of a program that finds it."""
    package = tmp_path / "transformers"
    package.mkdir()
    (package / "__init__.py").write_text(
        "class AutoModel:\n  def from_pretrained(name): return name\n"
        "class AutoTokenizer(AutoModel): pass\nclass CLIPModel(AutoModel): pass\n"
    )
    (package / "below.py").write_text("from transformers import CLIPModel as found\n")
    metadata = tmp_path / "transformers-5.17.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.17.0\n")
    return (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from jetscale.common.imports import quick_imports\n"
    )


def test_training_imports_no_statistics_and_no_models_of_texts_and_others_get_them(transformers: str) -> None:
    _run(
        f"{transformers}with quick_imports(): import jetscale.training.run\n"
        "assert 'torchmetrics' in sys.modules and 'scipy.stats' not in sys.modules\n"
        "import scipy.signal; assert scipy.signal.convolve([1, 2], [1]).tolist() == [1, 2]\n"
        "assert 'transformers' not in sys.modules\n"
        "from torchmetrics.functional.text import bert\n"
        "assert bert._TRANSFORMERS_GREATER_EQUAL_4_4 and 'transformers' not in sys.modules\n"
        "assert bert.AutoModel.from_pretrained('roberta') == 'roberta' and 'transformers' in sys.modules\n"
        "from transformers import AutoModel; assert AutoModel.__module__ == 'transformers'"
    )


@pytest.mark.parametrize(
    "line",
    [
        "from scipy.signal import convolve as found",
        "import scipy.signal.windows; found = scipy.signal.windows.hamming",
        "import scipy.signal as module; found = module.convolve",
        "import scipy.signal.windows._windows; found = scipy.signal.windows._windows.hamming",
    ],
)
def test_what_uses_scipy_signal_inside_gets_it(line: str) -> None:
    _run(
        "import sys; from jetscale.common.imports import quick_imports\n"
        f"with quick_imports():\n  {line}\n  assert callable(found)\n"
        "assert sys.modules['scipy.signal'].__file__"
    )


@pytest.mark.parametrize(
    "line",
    [
        "from transformers import CLIPModel as found",
        "import transformers; found = transformers.CLIPModel",
        "import transformers.below; found = transformers.below.found",
        "from importlib.util import find_spec; found = find_spec('transformers').loader.get_code",
    ],
)
def test_what_uses_transformers_inside_gets_it(transformers: str, line: str) -> None:
    _run(f"{transformers}with quick_imports():\n  {line}\n  assert callable(found)")


def test_nothing_stands_in_for_a_package_that_is_not_installed() -> None:
    with _standing_in("no_such_package", {"name": None}), pytest.raises(ModuleNotFoundError):
        import_module("no_such_package")

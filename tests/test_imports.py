"""The garbage collector while packages are imported, and after it."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jetscale.common.imports import without_collection


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
    with without_collection():
        assert not gc.isenabled()
        with without_collection():
            pass
        assert not gc.isenabled(), "the inner one ended, the outer one did not"
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError), without_collection():
        __import__("no_such_module")
    assert gc.isenabled()
    gc.disable()
    with without_collection():
        pass
    assert not gc.isenabled(), "as it was"


def test_what_was_made_is_old_and_still_collected() -> None:
    class Ring:
        itself: object

    with without_collection():
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
        "import gc; from jetscale.common.imports import without_collection\n"
        "gc.freeze(); frozen = gc.get_freeze_count()\n"
        "with without_collection(): import fractions\n"
        "assert gc.get_freeze_count() == frozen > 0 and gc.isenabled()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

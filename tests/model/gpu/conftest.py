from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest

WITHOUT_KERNELS = "test_buffers.py", "test_compiled.py"  # they import nothing that needs Triton


class WithoutTriton(pytest.Module):
    """A test file whose imports need Triton, where it is not installed."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        pytest.skip("Triton is not installed: it is published for Linux alone", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if find_spec("triton") is not None or module_path.name in WITHOUT_KERNELS:
        return None
    module: pytest.Module = WithoutTriton.from_parent(parent, path=module_path)
    return module

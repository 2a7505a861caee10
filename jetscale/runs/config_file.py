"""``config.yaml``, the resolved settings of a run: read here and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jetscale.common.files import DamagedFile
from jetscale.runs.layout import CONFIG


def read_config(folder: Path) -> dict[str, Any]:
    """Settings of the run in `folder`, as plain values: nothing in a run directory is resolved or called.

    Raises
    ------
    FileNotFoundError
        There are none.
    DamagedFile
        The file cannot be read, or holds no settings.
    """
    import yaml  # 30 ms, which ``--help`` does not need

    path = folder / CONFIG
    try:
        content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DamagedFile(f"{path} cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise DamagedFile(f"{path} holds no settings")
    return content

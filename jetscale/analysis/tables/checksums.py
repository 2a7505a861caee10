"""``checksums.json``: length and checksum of the files of a saved analysis that are read back.

Folders of earlier versions have none, and their parquet files no checksum either; those are read as they are.
"""

from __future__ import annotations

from pathlib import Path

from jetscale.common.files import CHECKSUM, DamagedFile, checksum_file
from jetscale.runs import parquet
from jetscale.runs.sealed import read_json, write_json_sealed

CHECKSUMS = "checksums.json"
KEPT = ("results.json", "losses.parquet", "losses-blocks.parquet", "replicates.parquet", "joint.parquet")


def remove(folder: Path) -> None:
    """Forget what was saved: its files are about to be written anew."""
    (folder / CHECKSUMS).unlink(missing_ok=True)


def write(folder: Path) -> None:
    """Write the checksums of what is in `folder` now."""
    files = {name: _mark(folder / name) for name in KEPT if (folder / name).is_file()}
    write_json_sealed(folder / CHECKSUMS, {"files": files})


def check(folder: Path) -> None:
    """Compare a saved analysis with its checksums.

    Raises
    ------
    DamagedFile
        A file is not the one that was written, or the checksums of a folder that had some are missing.
    """
    path = folder / CHECKSUMS
    if not path.is_file():
        if parquet.is_sealed(folder / "losses.parquet"):
            raise DamagedFile(f"{path} is missing: the analysis was interrupted, or the file was removed")
        return
    files = read_json(path)[0].get("files", {})
    for name, expected in files.items():
        if not (folder / name).is_file() or _mark(folder / name) != expected:
            raise DamagedFile(f"{folder / name} is damaged or missing: it does not fit {path.name}")


def _mark(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, CHECKSUM: checksum_file(path)}

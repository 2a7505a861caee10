"""Small disks of their own, to fill and to make read-only: permissions stop no test that runs as root."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


class Disk:
    """A memory file system mounted at `path`; skips the test where this user may mount nothing."""

    def __init__(self, path: Path, kib: int) -> None:
        self.path = path
        path.mkdir(parents=True)
        done = _mount("-t", "tmpfs", "-o", f"size={kib}k", "none", str(path))
        if done.returncode:
            pytest.skip(f"no disk of its own for this test: {done.stderr.strip()}")

    def resize(self, kib: int) -> None:
        """Make it larger or smaller."""
        assert _mount("-o", f"remount,size={kib}k", str(self.path)).returncode == 0

    def read_only(self, yes: bool) -> None:
        """Refuse writes, or take them again."""
        assert _mount("-o", f"remount,{'ro' if yes else 'rw'}", str(self.path)).returncode == 0

    def fill(self) -> Path:
        """Take all that is free, with a file to delete; what is written next meets a full disk."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(4096))
            except OSError:
                pass
        return filler

    def close(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True)

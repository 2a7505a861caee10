"""``done.json``, written last: what a run was and gave, with length and checksum of every file beside it.

Whoever reads a finished run reads it through `read_done`, which compares all files with it. Identity files
(``identity.json``) do the same for the ``config.yaml`` of a run that is not finished.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from jetscale.common.files import CHECKSUM, DamagedFile, checksum_file
from jetscale.runs.lines import DamagedLine, parse_lines
from jetscale.runs.sealed import read_json, write_json_sealed

DONE, IDENTITY, CONFIG = "done.json", "identity.json", "config.yaml"
METRICS, BLOCKS, WEIGHTS = "metrics.jsonl", "test_blocks.parquet", "checkpoints/final.pt"
KEPT = (CONFIG, METRICS, BLOCKS, WEIGHTS, "checkpoints/final.json")
"""Files that a finished run is made of, besides `done.json`."""
SAME_SUM = 1e-9
"""Block losses are added in another order than the loss was: relative difference that this may make."""


class DamagedRun(DamagedFile):
    """A file of a run is not the one that was written; the message names it."""


@dataclass(frozen=True)
class Done:
    """A finished run.

    Attributes
    ----------
    content : of ``done.json``, without what checks the files
    verified : whether all files were compared with their checksums; False for a run of an earlier version
    """

    content: dict[str, Any]
    verified: bool


def write_done(folder: Path, content: dict[str, Any]) -> None:
    """Write ``done.json`` over the files that are in `folder` now."""
    files = {name: _mark(folder / name) for name in KEPT if (folder / name).is_file()}
    write_json_sealed(folder / DONE, {**content, "files": files})


def read_done(folder: Path) -> Done | None:
    """The finished run in `folder`, every file compared with ``done.json``; None where it is not finished.

    Raises
    ------
    DamagedRun
        ``done.json`` or a file beside it is damaged, missing, or was not there when the run finished.
    """
    path = folder / DONE
    try:
        content, sealed = read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedFile as error:
        raise DamagedRun(str(error)) from error
    except OSError as error:
        raise DamagedRun(f"{path} cannot be read ({error})") from error
    if not sealed:
        _refuse_newer_neighbours(folder, content)
        return Done(content, verified=False)
    files = content.pop("files", None)
    if not isinstance(files, dict):
        raise DamagedRun(f"{path} is damaged: it lists no files")
    for name in (*files, *(name for name in KEPT if name not in files)):
        _compare(folder / name, files.get(name))
    if read_identity(folder) not in (None, content.get("identity")):
        raise DamagedRun(f"{folder / IDENTITY} is not of this run: {DONE} has another identity")
    return Done(content, verified=True)


def write_identity(folder: Path, identity: str, config_yaml: bytes) -> None:
    """Write ``identity.json`` for a ``config.yaml`` that is to follow; the one that is there stays valid.

    So a kill between the two files leaves a folder that fits its identity.
    """
    configs = [_mark_bytes(config_yaml)]
    if (folder / CONFIG).is_file():
        before = _mark(folder / CONFIG)
        configs += [before] if before != configs[0] else []
    write_json_sealed(folder / IDENTITY, {"identity": identity, "config": configs})


def read_identity(folder: Path) -> str | None:
    """Identity of the run that `folder` was begun for, None where none was; ``config.yaml`` must fit it.

    Raises
    ------
    DamagedRun
        ``identity.json`` or ``config.yaml`` is damaged.
    """
    path, config = folder / IDENTITY, folder / CONFIG
    try:
        content, sealed = read_json(path)
        identity = content["identity"]
        if sealed and config.exists() and _mark(config) not in content["config"]:
            raise DamagedRun(f"{config} is damaged: it is not the one that {IDENTITY} was written for")
    except FileNotFoundError:
        return None
    except (KeyError, TypeError) as error:
        raise DamagedRun(f"{path} is damaged: it lacks {error}") from error
    except DamagedRun:
        raise
    except DamagedFile as error:
        raise DamagedRun(str(error)) from error
    return str(identity)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Lines of ``metrics.jsonl``, a last one without its end left out; none where there is no such file.

    Raises
    ------
    DamagedRun
        A line is damaged.
    """
    path = folder / METRICS
    try:
        *whole, _torn = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    try:
        return parse_lines(whole)
    except DamagedLine as error:
        raise DamagedRun(f"{path}:{error.number}: {error}") from error


def disagreement(
    lines: Iterable[dict[str, Any]], sums: dict[tuple[int, str], tuple[float, float]]
) -> str | None:
    """How block losses and test losses of one phase disagree; None where they do not.

    Parameters
    ----------
    lines : metrics lines of the phase
    sums : summed loss and number of jets of each evaluation, by step and weights
    """
    tests = [line for line in lines if line.get("split") == "test" and line.get("jets", 0) > 0]
    losses = {(int(line["step"]), str(line["weights"])): float(line["loss"]) for line in tests}
    if lacking := sorted(set(losses) - set(sums)):
        return f"lacks the evaluation after step {lacking[0][0]} ({lacking[0][1]} weights)"
    if foreign := sorted(set(sums) - set(losses)):
        return f"has an evaluation after step {foreign[0][0]} ({foreign[0][1]} weights) that {METRICS} lacks"
    for (step, weights), loss in losses.items():
        total, jets = sums[step, weights]
        mean = total / jets if jets else math.nan
        if not math.isclose(mean, loss, rel_tol=SAME_SUM):
            where = f"after step {step} ({weights} weights)"
            return f"adds up to a loss of {mean:.6g} {where}, {METRICS} has {loss:.6g}"
    return None


def check_final(lines: Iterable[dict[str, Any]], content: dict[str, Any]) -> str | None:
    """How the final losses of ``done.json`` disagree with the last evaluations; None where they do not."""
    final = content.get("final")
    if not isinstance(final, dict):
        return None
    last = {
        str(line["weights"]): line["loss"]
        for line in lines
        if line.get("phase") == "finetune" and line.get("split") in ("test", "test_all")
    }
    for weights, entry in final.items():
        if weights not in last or last[weights] != entry["loss"]:
            return f"has a final loss of {entry['loss']} ({weights} weights), {METRICS} {last.get(weights)}"
    return None


def _refuse_newer_neighbours(folder: Path, content: dict[str, Any]) -> None:
    """A ``done.json`` without checksum beside an identity that has one was stripped of it."""
    newer = "files" in content
    if (folder / IDENTITY).is_file() and not newer:
        try:
            newer = read_json(folder / IDENTITY)[1]
        except DamagedFile as error:
            raise DamagedRun(str(error)) from error
    if newer:
        raise DamagedRun(f"{folder / DONE} is damaged: its checksum is missing")


def _compare(path: Path, expected: dict[str, Any] | None) -> None:
    if expected is None:
        if path.exists():
            raise DamagedRun(f"{path} is not of this run: it was not there when the run finished")
        return
    if not path.is_file():
        raise DamagedRun(f"{path} is missing: {DONE} lists it")
    if _mark(path) != expected:
        raise DamagedRun(f"{path} is damaged: its content does not fit its checksum in {DONE}")


def _mark(path: Path) -> dict[str, Any]:
    try:
        return {"bytes": path.stat().st_size, CHECKSUM: checksum_file(path)}
    except OSError as error:
        raise DamagedRun(f"{path} cannot be read ({error})") from error


def _mark_bytes(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), CHECKSUM: xxhash.xxh3_128_hexdigest(content)}

"""What a sweep leaves for its other processes: the plan, and the runs of a pack."""

from __future__ import annotations

from pathlib import Path

from benchmarks.faults.digests import digest
from benchmarks.faults.flips import FilesKind
from benchmarks.faults.runs import settings_of
from jetscale.launch.jobs import Job, read_jobs, write_jobs
from jetscale.launch.sweep_plan import plan_sweep

SEEDS = (0, 1)


def _jobs(folder: Path) -> list[Job]:
    settings = {f"seed={seed}": settings_of(f"seed={seed}") for seed in SEEDS}
    return [Job((name,), found, folder / "sweep" / name) for name, found in settings.items()]


def _make(folder: Path) -> None:
    jobs = _jobs(folder)
    write_jobs(folder / "sweep" / "pack.json", jobs)
    plan_sweep(jobs[:1]).write(folder / "sweep")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "sweep").iterdir() if path.is_file())


def _work_and_plan_again(folder: Path) -> str:
    """Take the runs of the pack, and plan a sweep of more runs into the same folder."""
    taken = [
        (job.overrides, job.settings, job.path.name) for job in read_jobs(folder / "sweep" / "pack.json")
    ]
    plan_sweep(_jobs(folder)[1:]).write(folder / "sweep")
    return digest(taken, (folder / "sweep" / "plan.json").read_bytes())


KINDS = (FilesKind("plan and packs of a sweep", 60, _make, _files, _work_and_plan_again, changes=True),)

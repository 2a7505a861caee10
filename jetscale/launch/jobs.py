"""One run of a sweep, before it is started: its settings and its directory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from jetscale.common.masking import masked
from jetscale.common.usage import UsageError
from jetscale.runs.directory import RunDirectory
from jetscale.runs.ownership import is_free
from jetscale.runs.sealed import read_json, write_json_sealed
from jetscale.training.same_jets import same_jets
from jetscale.training.settings import TrainSettings, from_config, public, to_yaml


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes
    ----------
    overrides : what makes it this run, as Hydra's launchers take them
    settings : its settings, checked
    path : its run directory
    """

    overrides: tuple[str, ...]
    settings: TrainSettings
    path: Path

    @property
    def directory(self) -> RunDirectory:
        """The run directory, which must be of these settings and, where it is done, of their jets."""
        return RunDirectory(self.path, self.settings.identity(), same_jets(self.settings))

    def is_free(self) -> bool:
        """Return True if no process holds it."""
        return is_free(self.path)


def job_of(config: DictConfig, overrides: Iterable[str]) -> Job:
    """The job that Hydra composed.

    Parameters
    ----------
    config : composed configuration of one job, with its node ``hydra``
    overrides : the job's overrides, as the launcher gets them

    Raises
    ------
    SettingsError
        The settings cannot be run.
    """
    path = Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir))
    task = config.copy()
    with open_dict(task):
        del task["hydra"]
    return Job(tuple(overrides), from_config(task), path)


def check_folders(jobs: Sequence[Job], sweep: Path) -> None:
    """Demand that every job has a folder to itself, inside the folder of the sweep.

    Raises
    ------
    UsageError
        Two jobs would write one folder, or a job is of another study; both are named.
    """
    owners: dict[Path, Job] = {}
    for job in jobs:
        if not job.path.is_relative_to(sweep):
            elsewhere = Path(*job.path.parts[: len(sweep.parts)])
            raise UsageError(
                f"a sweep is one study, but the job {_typed(job)} would be in {elsewhere}, not in {sweep}; "
                "run the command once for each study, or give the whole sweep one name (study=NAME)"
            )
        if (other := owners.setdefault(job.path, job)) is not job:
            raise UsageError(_clash(other, job))


def _clash(one: Job, two: Job) -> str:
    if one.overrides == two.overrides:
        return f"the job {_typed(one)} is there twice; name each value of a sweep once"
    return (
        f"two jobs would write the same folder {one.path}: {_typed(one)} and {_typed(two)}; what differs "
        "between them is not in its name, so make two sweeps of it (study=NAME)"
    )


def _typed(job: Job) -> str:
    return masked(" ".join(job.overrides))


def write_jobs(path: Path, jobs: Iterable[Job]) -> None:
    """Write jobs for `read_jobs` in another process: plain JSON, nothing in it runs.

    Raises
    ------
    UsageError
        A setting holds a password, which is not written down; without it the run would be another one.
    """
    entries = []
    for job in jobs:
        hidden = _hidden_keys(asdict(job.settings), public(job.settings))
        if hidden:
            raise UsageError(
                f"{', '.join(hidden)} of {job.path} holds a password or another secret of the environment, "
                "and jobs of Slurm get their settings from a file, where no secret is written; give the "
                "secret through the environment or a file of the service it is for, and leave it out here"
            )
        entries.append(
            {"path": str(job.path), "overrides": list(job.overrides), "settings": to_yaml(job.settings)}
        )
    write_json_sealed(path, {"jobs": entries})


def _hidden_keys(content: dict[str, Any], shown: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys whose value masking changes."""
    found: list[str] = []
    for key, value in content.items():
        if isinstance(value, dict) and isinstance(shown.get(key), dict):
            found += _hidden_keys(value, shown[key], f"{prefix}{key}.")
        elif shown.get(key) != value:
            found.append(f"{prefix}{key}")
    return found


def read_jobs(path: Path) -> list[Job]:
    """Jobs that `write_jobs` wrote.

    Raises
    ------
    DamagedFile
        The file is not what was written.
    """
    jobs = []
    for entry in read_json(path)[0]["jobs"]:
        config = OmegaConf.create(entry["settings"])
        assert isinstance(config, DictConfig)
        jobs.append(Job(tuple(entry["overrides"]), from_config(config), Path(entry["path"])))
    return jobs

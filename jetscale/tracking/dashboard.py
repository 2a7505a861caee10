"""``python -m jetscale.tracking.dashboard ENTITY/PROJECT``: build the W&B dashboard of a project's sweeps.

Two saved views: ``jetscale`` (scaling, throughput, the curves of both phases) and ``jetscale failures``
(runs that failed, crashed or were killed, with their errors). They draw what
`jetscale.tracking.wandb_run.values_of` sends. W&B itself cannot fit: N*(C) is read off the lower edge of a
scatter plot there, and fitted by ``python -m jetscale.analysis source=wandb``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from jetscale.common import cli
from jetscale.common.fields import COUNT
from jetscale.common.masking import masked
from jetscale.common.usage import UsageError, install_extra
from jetscale.tracking.wandb_environment import has_key

PROGRAM = "python -m jetscale.tracking.dashboard"

BAD_STATES = ("failed", "crashed", "killed")
_COLUMNS = [
    "run:state",
    "config:study",
    "config:subset",
    "config:dim",
    "config:variant",
    "config:seed",
    "config:n_params",
    "config:lr",
    "config:gpu",
]
_GROUPS = ("study", "subset", "dim", "variant")

_FIT = """\
**N\\*(C)** is the lower edge of *N against C*: the size with the lowest loss at each compute. The fit with
its uncertainties, from the exact histories:

    python -m jetscale.analysis source=wandb path={path} out=fit
"""


@dataclass
class DashboardSettings:
    """Save the W&B dashboard of a project's sweeps as two new views, and print their addresses.

    Attributes
    ----------
    path : ENTITY/PROJECT, where the runs are; ``path=`` may be left out.
    study : only runs of this study.
    subset : only runs of this subset.
    dim : only runs of this width.
    variant : only runs with these overrides beyond subset, width and seed; empty for runs without any.
    dry_run : print the JSON that would be sent; needs no key.
    """

    path: str = ""
    study: str | None = None
    subset: str | None = None
    dim: Annotated[int | None, COUNT] = None
    variant: str | None = None
    dry_run: bool = False


def main(argv: Sequence[str]) -> None:
    """Build the views, and save them or print them."""
    settings = cli.parse(DashboardSettings, argv, PROGRAM, positional="path")
    entity, project = _parts(settings.path)
    filters = {key: value for key in _GROUPS if (value := getattr(settings, key)) is not None}
    views = workspaces(entity, project, filters)
    if settings.dry_run:
        sys.stdout.write(json.dumps([as_json(view) for view in views], indent=2) + "\n")
        return
    for url in save(views):
        sys.stdout.write(f"{url}\n")


def workspaces(entity: str, project: str, filters: dict[str, str | int] | None = None) -> list[Any]:
    """Build the two views.

    Parameters
    ----------
    entity, project : where the runs are
    filters : values of ``study``, ``subset``, ``dim`` or ``variant``; other runs are left out

    Returns
    -------
    The views (`wandb_workspaces.workspaces.Workspace`), not saved.

    Raises
    ------
    UsageError
        The package ``wandb-workspaces`` is not installed.
    """
    ws, _, expr = _packages()
    kept = [expr.Config(key) == value for key, value in (filters or {}).items()]
    title = " ".join(["jetscale", *(str(value) for value in (filters or {}).values() if value != "")])
    settings = ws.WorkspaceSettings(max_runs=100, remove_legends_from_panels=False)
    # the runs of a group differ in their seed only, so that a group's mean is one over seeds
    groups = [expr.Config(key) for key in _GROUPS]
    main_view = ws.Workspace(
        entity=entity,
        project=project,
        name=title,
        sections=_sections(f"{entity}/{project}"),
        settings=settings,
        runset_settings=ws.RunsetSettings(filters=kept, groupby=groups, pinned_columns=list(_COLUMNS)),
        auto_generate_panels=False,
    )
    failures = ws.Workspace(
        entity=entity,
        project=project,
        name=f"{title} failures",
        sections=_failures(),
        settings=settings,
        runset_settings=ws.RunsetSettings(
            filters=[*kept, expr.Metric("State").isin(list(BAD_STATES))],
            pinned_columns=[*_COLUMNS, "summary:error", "summary:finetune/step", "summary:pretrain/step"],
        ),
        auto_generate_panels=False,
    )
    return [main_view, failures]


def as_json(workspace: Any) -> dict[str, Any]:
    """What W&B is sent for the view `workspace`."""
    view = workspace._to_model()  # the package has no public way to see it without sending it
    spec = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))
    return {"entityName": view.entity, "projectName": view.project, "displayName": view.display_name} | {
        "spec": spec
    }


def save(views: list[Any]) -> list[str]:
    """Save `views` as new ones in W&B; returns their addresses.

    Raises
    ------
    UsageError
        No key, no such project, no permission, or a server that cannot be reached.
    """
    try:
        key = has_key()
    except ValueError as error:
        raise UsageError(f"{masked(str(error))}; set WANDB_API_KEY, or repair the file") from error
    if not key:
        raise UsageError("no W&B key: set WANDB_API_KEY, or run `wandb login`; dry_run=true needs none")
    import wandb

    path = f"{views[0].entity}/{views[0].project}"
    try:
        len(wandb.Api().runs(path, per_page=1))  # W&B would say less of a project that is not there
        return [view.save().url for view in views]
    except Exception as error:  # the client raises its own, requests' and plain ones
        raise UsageError(
            f"W&B refused the dashboard of {path} ({masked(f'{type(error).__name__}: {error}')}); "
            "check ENTITY/PROJECT, that the project has a run, and that the key may write there"
        ) from error


def _sections(path: str) -> list[Any]:
    ws, wr, _ = _packages()
    loss, average = "finetune/test_loss", "finetune/test_loss_ema"

    def against(x: str, y: str, title: str, **more: Any) -> Any:
        return wr.LinePlot(title=title, x=x, y=[y], log_x=True, log_y=True, max_runs_to_show=100, **more)

    flops = {"title_x": "C = 6 N 40 jets", "title_y": "test loss"}
    n_params, compute = wr.Config("n_params"), wr.SummaryMetric("flops")
    scaling = [
        against("flops", loss, "Test loss against compute, by width", **flops, groupby=wr.Config("dim")),
        against("flops", loss, "Test loss against compute, seeds averaged", **flops),
        against("flops", average, "Test loss of averaged weights against compute", **flops),
        against("jets", loss, "Test loss against jets", title_x="D", title_y="test loss"),
        wr.ScatterPlot(
            title="N against C at the end of each run, coloured by test loss",
            x=compute, y=n_params, z=wr.SummaryMetric(loss), log_x=True, log_y=True,
        ),
        wr.ScatterPlot(
            title="Test loss against N at the end of each run",
            x=n_params, y=wr.SummaryMetric(loss), z=compute, log_x=True, log_y=True, log_z=True,
        ),
        wr.MarkdownPanel(markdown=_FIT.format(path=path)),
    ]  # fmt: skip
    speed = [
        wr.BarPlot(
            title="Jets/s while fine-tuning, by width", metrics=["finetune/jets_per_second"],
            groupby=wr.Config("dim"), groupby_aggfunc="mean", groupby_rangefunc="minmax",
        )
    ]  # fmt: skip
    speed += [
        wr.LinePlot(title=f"Jets/s, {phase}", x=f"{phase}/step", y=[f"{phase}/jets_per_second"])
        for phase in ("pretrain", "finetune")
    ]
    return [
        ws.Section(name="Scaling", panels=scaling, is_open=True, pinned=True),
        ws.Section(name="Throughput", panels=speed, is_open=True),
        ws.Section(name="Fine-tuning", panels=_curves("finetune", "test_accuracy")),
        ws.Section(name="Pretraining", panels=_curves("pretrain")),
    ]


def _failures() -> list[Any]:
    ws, wr, _ = _packages()
    panels = [
        wr.RunComparer(diff_only="split"),
        *_curves("pretrain"),
        *_curves("finetune"),
    ]
    return [ws.Section(name="Failures", panels=panels, is_open=True, pinned=True)]


def _curves(phase: str, *more: str) -> list[Any]:
    _, wr, _ = _packages()
    names = {"train_loss": "Training loss", "lr": "Learning rate", "test_accuracy": "Test accuracy"}
    return [
        wr.LinePlot(title=f"{names[key]}, {phase}", x=f"{phase}/step", y=[f"{phase}/{key}"])
        for key in ("train_loss", "lr", *more)
    ]


def _packages() -> tuple[Any, Any, Any]:
    try:
        import wandb_workspaces.expr as expr
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise UsageError(
            f"the dashboard needs {error.name}, which is not installed: {install_extra('dashboard')}"
        ) from error
    return ws, wr, expr


def _parts(path: str) -> tuple[str, str]:
    parts = path.split("/")
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"path={path}: must be ENTITY/PROJECT, as in the address of the project's page")
    return parts[0], parts[1]


if __name__ == "__main__":
    sys.exit(cli.run(main, PROGRAM))

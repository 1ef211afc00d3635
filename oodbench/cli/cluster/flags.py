"""The options that say where a study runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oodbench.cli.reference import completion
from oodbench.errors import UserError

if TYPE_CHECKING:
    from oodbench.engines.cluster import Cluster

PANEL = "On a cluster"
On = Annotated[
    str,
    typer.Option(
        help="local, slurm or dask.",
        rich_help_panel=PANEL,
        show_default=False,
        autocompletion=completion.of("local", "slurm", "dask"),
    ),
]
ClusterFile = Annotated[
    Path | None,
    typer.Option("--cluster", help="A cluster file; flags win.", rich_help_panel=PANEL, show_default=False),
]
Partition = Annotated[str, typer.Option(help="Of Slurm.", rich_help_panel=PANEL, show_default=False)]
Time = Annotated[
    str,
    typer.Option("--time", help="Limit of a job that trains, such as 4h.", rich_help_panel=PANEL, show_default=False),
]
AtMost = Annotated[
    int | None, typer.Option(help="Jobs of an array at once.", rich_help_panel=PANEL, show_default=False, min=1)
]
Address = Annotated[str, typer.Option(help="Of dask's scheduler.", rich_help_panel=PANEL, show_default=False)]
Shared = Annotated[
    bool | None,
    typer.Option(
        "--shared/--not-shared", help="Whether hosts share a file system.", rich_help_panel=PANEL, show_default=False
    ),
]
NoWait = Annotated[
    bool, typer.Option("--no-wait", help="Submit and end; the same command joins later.", rich_help_panel=PANEL)
]


def cluster(file: Path | None, **flags: Any) -> Cluster | None:
    """Return where a study runs; None: here. A cluster's flags without an engine are refused."""
    given = {name: value for name, value in flags.items() if value not in (None, "")}
    if file is None and "on" not in given:
        if given:
            first = next(iter(given))
            option = "--not-shared" if given[first] is False else f"--{first.replace('_', '-')}"
            raise UserError(
                f"{option} is of a run on a cluster; say which with --on slurm, --on dask or --cluster FILE"
            )
        return None
    from oodbench.engines import cluster as clusters

    found = clusters.load(file, given)
    return None if found.on == "local" else found


def check_whole(
    where: Cluster | None, only: list[str] | None, set_: list[str] | None, until_decided: bool = False
) -> None:
    """Refuse a part of a study, or a changed one, on a cluster: jobs read its file, and seeds where they see them."""
    if where is not None and (only or set_):
        option = "--only" if only else "--set"
        raise UserError(f"{option} is of a run on one machine; on a cluster jobs read the file: say it there")
    if where is not None and until_decided and not where.shared:
        said = "--until-decided adds seeds in the folder of results"
        raise UserError(f"{said}, which hosts with shared: false do not see")

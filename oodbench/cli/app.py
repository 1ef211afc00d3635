"""The command line: which commands there are, in the order that `oodbench --help` has."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from oodbench.cli import (
    arguments,
    feature_commands,
    plugin_commands,
    report_commands,
    screen,
    store_commands,
    study_commands,
)
from oodbench.cli.cluster import commands as cluster_commands
from oodbench.cli.deployment import commands as deployment_commands
from oodbench.errors import UserError
from oodbench.store.process import outlived
from oodbench.store.provenance import version

COMMANDS: tuple[Callable[..., None], ...] = (
    study_commands.run,
    study_commands.prepare,
    study_commands.plan,
    report_commands.tables_,
    report_commands.report,
    report_commands.verdict,
    report_commands.effects,
    report_commands.recommend,
    feature_commands.demo,
    feature_commands.score,
    feature_commands.export_features,
    feature_commands.scores,
    deployment_commands.export,
    deployment_commands.predict,
    report_commands.quality,
    report_commands.curve,
    report_commands.plot,
    study_commands.audit,
    store_commands.status,
    cluster_commands.cancel,
    cluster_commands.unit,
    store_commands.show,
    plugin_commands.list_,
    plugin_commands.info,
    plugin_commands.new,
    plugin_commands.check,
    store_commands.merge,
    store_commands.submit,
    store_commands.board,
    store_commands.compact,
    store_commands.verify,
    store_commands.rekey,
    store_commands.gc,
)


def guarded(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command in which a user's mistake is one message and exit code 2, and Ctrl-C is exit code 130.

    Where a plugin ends the program, or the machine fails, that is one message and exit code 1.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with outlived():
                function(*args, **kwargs)
        except UserError as error:
            screen.complain("[bold red]error:[/]", str(error))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            screen.err.print("stopped; what is finished is kept, the same command goes on")
            raise typer.Exit(130) from None
        except SystemExit as error:
            if isinstance(error.__context__, BrokenPipeError):  # nobody reads on, as after `| head`
                raise
            screen.complain("[bold red]error:[/]", f"a plugin ended the program, with code {error.code}")
            raise typer.Exit(1) from None
        except BrokenPipeError:
            raise
        except (OSError, MemoryError) as error:
            screen.complain("[bold red]error:[/]", str(error) or "there is not enough memory")
            raise typer.Exit(1) from None

    return wrapped


def _say_version(wanted: bool) -> None:
    if wanted:
        screen.say(f"oodbench {version()}")
        raise typer.Exit


def main(
    say: Annotated[
        bool, typer.Option("--version", help="Say the version, and end.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """What all commands begin with."""
    for stream in (sys.stdout, sys.stderr):  # a sign that an encoding lacks ends no command
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


app = typer.Typer(
    help="What really makes an out-of-distribution detector work: trainings x clusterings x distances x thresholds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.callback()(main)
for each in COMMANDS:
    app.command(each.__name__.rstrip("_").replace("_", "-"), cls=arguments.SeveralWords)(guarded(each))

"""`oodbench WORDS` in this process, as a user types it."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from oodbench.cli.app import app

__all__ = ["Result", "call"]


def call(*words: object) -> Result:
    """Return exit code and output of a command; lines are wide enough for the temporary folders of tests."""
    return CliRunner(env={"COLUMNS": "250"}).invoke(app, [str(word) for word in words])

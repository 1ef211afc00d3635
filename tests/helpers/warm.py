"""The command line in processes of its own that start at once: forks of one that has imported what it needs.

What a child of this kind does, and how it dies, is what a new interpreter does; only seconds of imports are saved.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

IMPORTS = [
    "oodbench.execution.runner",
    "oodbench.report.tables",
    "timm.models.resnet",
    "torch._dynamo",
    "pandas",
    "typer",
]

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(IMPORTS)


class Command:
    """`oodbench WORDS` at work, its results in a folder, its output beside it."""

    def __init__(self, folder: Path, *words: object) -> None:
        handle, name = tempfile.mkstemp(".log", f"{folder.name}-", folder.parent)
        os.close(handle)
        self._output = Path(name)
        arguments = ([str(word) for word in words], self._output, os.environ | {"OODBENCH_RESULTS": str(folder)})
        self._process: BaseProcess = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()

    def runs(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        """End it by SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL, self.output()

    def output(self) -> str:
        return self._output.read_text()

    def finished(self) -> str:
        """Wait for its end, which must be a good one, and return its output."""
        self._process.join(240)
        assert self._process.exitcode == 0, self.output()
        return self.output()


def _serve(words: list[str], output: Path, env: dict[str, str]) -> None:
    with output.open("w") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
    os.environ.clear()
    os.environ.update(env)
    from oodbench.cli import app

    sys.argv = ["oodbench", *words]
    app.app()

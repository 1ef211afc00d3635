"""A watch that remembers what it hears."""

from __future__ import annotations

from oodbench.store.memo import Watch


class Listener(Watch):
    """Remembers the stages that a pipeline goes through, and what it warns of."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.warnings: list[str] = []

    def stage(self, what: str, title: str) -> None:
        self.stages.append(what)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

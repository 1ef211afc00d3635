"""What a shell offers when a word is half typed: study files, rooms, names. Each takes what is typed."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator

Offered = Callable[[str], list[str]]


def study_files(incomplete: str) -> list[str]:
    """Return the study files that begin so, those one folder further down, and the studies that come with oodbench."""
    from oodbench.study.document import shipped

    start = glob.escape(incomplete)
    found = [
        each for ending in ("yaml", "yml") for form in ("*.", "*/*.") for each in glob.glob(f"{start}{form}{ending}")
    ]
    return sorted({*found, *_beginning(shipped(), incomplete)})


def of(*words: str) -> Offered:
    """Return what offers some words."""
    return lambda incomplete: _beginning(words, incomplete)


def rooms(incomplete: str) -> list[str]:
    from oodbench.study.registry import ROOMS

    return _beginning([*ROOMS, "recipes", "suites"], incomplete)


def plugins(incomplete: str) -> list[str]:
    return _beginning(_plugins(), incomplete)


def names(incomplete: str) -> list[str]:
    """Return the plugins, keys of a study and columns of rows that begin so."""
    from oodbench.cli.reference.keys import keys
    from oodbench.store.columns import MEANING
    from oodbench.study.registry import Registry

    return _beginning([*_plugins(), *keys(Registry()), *MEANING], incomplete)


def _plugins() -> Iterator[str]:
    from oodbench.study.registry import ROOMS, Registry

    registry = Registry()
    for room in ROOMS:
        for name in registry.sources(room):
            yield from (name, f"{room}/{name}")


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return sorted({each for each in words if each.startswith(incomplete)})

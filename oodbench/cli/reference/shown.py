"""What is known of a plugin, a key or a column, as a terminal shows it; and the names nearest to one that is none."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.text import Text

from oodbench.cli import screen
from oodbench.cli.reference.columns import ColumnFacts
from oodbench.cli.reference.keys import KeyFacts
from oodbench.study.suites import KEYS as SUITE_KEYS

NEAREST = 5  # names that a message offers


def plugin(facts: dict[str, Any]) -> None:
    """Print what is known of a plugin."""
    _head(f"{facts['room']} {facts['name']}", "plugin")
    screen.out.print("\n\n".join(map(_flowing, facts["doc"].split("\n\n"))))
    if facts["error"]:
        screen.out.print(f"\nit cannot be used: {facts['error']}")
    if facts["parameters"]:
        screen.out.print("\nparameters", style="bold")
        _table(
            (each["name"], _default(each["required"], each["default"]), *_said(each)) for each in facts["parameters"]
        )
    if unusual := [each for each in facts["contract"] if each["value"] != each["usual"]]:
        screen.out.print("\ncontract, where it differs from the usual", style="bold")
        _table((each["name"], _brief(each["value"]), each["meaning"]) for each in unusual)
    screen.out.print()
    papers = ", ".join(f"arXiv {each}" for each in facts["arxiv"])
    _table([*([("paper", papers)] if papers else []), ("file", facts["file"])])


def key(facts: KeyFacts) -> None:
    """Print what is known of a key of a study."""
    _head(facts.name, "key of a study")
    if facts.required:
        default = "none: it is needed" + (", unless a suite says it" if facts.name in SUITE_KEYS else "")
    else:
        default = "none" if facts.default is None and "null" not in facts.type else _brief(facts.default)
    lines = [("meaning", facts.meaning), ("type", facts.type), ("default", default)]
    lines += [("example", facts.example)] if facts.example else []
    lines += [("allowed", ", ".join(facts.allowed))] if facts.allowed else []
    lines += [("under it", ", ".join(f"{facts.name}.{each}" for each in facts.parts))] if facts.parts else []
    _table([*lines, ("said in", facts.source)])


def column(facts: ColumnFacts) -> None:
    """Print what is known of a column of rows."""
    _head(facts.name, "column of rows")
    lines = [("meaning", facts.meaning), ("unit", facts.unit)]
    lines += [("direction", facts.direction)] if facts.direction else []
    _table([*lines, ("source", facts.source)])


def nearest(given: str, names: dict[str, str]) -> str:
    """Return the names nearest to one, each with what it is of, as the end of a message."""
    lower = {name.lower(): name for name in names}
    found = [lower[each] for each in difflib.get_close_matches(given.lower(), lower, n=NEAREST)]
    near = ", ".join(f"'{each}' ({names[each]})" for each in found)
    said = f"; did you mean {near}?" if near else ";"
    return f"{said} `oodbench list` has the plugins, docs/study.md the keys, docs/metrics.md the columns"


def _flowing(paragraph: str) -> str:
    """Return a paragraph without its line ends, but for one that is laid out."""
    return paragraph if "\n " in f"\n{paragraph}" else " ".join(paragraph.split("\n"))


def _head(name: str, kind: str) -> None:
    screen.out.print(Text.assemble("\n", (name, "bold"), "  ", (kind, "dim")))


def _said(parameter: dict[str, Any]) -> tuple[str, str]:
    return parameter["type"], parameter["meaning"]


def _default(required: bool, value: Any) -> str:
    return "needed" if required else _brief(value)


def _brief(value: Any) -> str:
    if isinstance(value, dict) and "title" in value:  # where a data set is from
        return f"{value['title']}: {value['page']}; licence: {value['licence']}"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _table(lines: Iterable[Sequence[str]]) -> None:
    """Print lines of several cells, the first one whole, the others folded."""
    rows = list(lines)
    table = screen.columns(*("" for _ in rows[0]))
    table.show_header = False
    for column in table.columns:
        column.overflow = "fold"
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(Text("  ") + screen.text(row[0]), *map(screen.text, row[1:]))
    screen.out.print(table)

"""What is known of plugins and keys, as pages of the documentation have it: each list stands between two marks."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from oodbench.api import Dataset
from oodbench.cli.reference import keys
from oodbench.cli.reference.fields import fields
from oodbench.cli.reference.plugins import described
from oodbench.errors import UserError, suggestion
from oodbench.study.registry import ROOMS, Registry

BEGIN, END = "<!-- oodbench list {} -->\n", "<!-- end -->"
LISTS = re.compile(r"(?<=<!-- oodbench list )[a-z]+(?= -->\n)")
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
NEEDED = "needed"
OWN = "your own, or made by a program"


def renew(file: Path, registry: Registry, books: Mapping[str, Mapping[str, str]], only: str = "") -> None:
    """Write the lists of a file anew between their marks, or one of them alone. Raises UserError where it has none."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    made: dict[str, Callable[[], str]] = {room: lambda room=room: _room(registry, room) for room in ROOMS}  # type: ignore[misc]
    made |= {name: lambda name=name: _book(books[name]) for name in books}  # type: ignore[misc]
    made["keys"] = lambda: _keys(registry)
    found = [each for each in LISTS.findall(text) if only in ("", each)]
    if not found:
        mark = BEGIN.format(only or "ROOM").strip()
        raise UserError(f"{file} has no {mark} and {END} after it; the list would stand between them")
    for name in found:
        if name not in made:
            raise UserError(f"{file} has a mark for '{name}', of which there is no list{suggestion(name, made)}")
        before, begin, rest = text.partition(BEGIN.format(name))
        _, end, after = rest.partition(END)
        if not end:
            raise UserError(f"{file} has no {END} after {begin.strip()}")
        text = f"{before}{begin}\n{made[name]()}\n{end}{after}"
    file.write_text(text, encoding="utf-8")


def _room(registry: Registry, room: str) -> str:
    plugins = [described(each) for each in registry.sources(room).values()]
    shared = {each.name for each in fields(Dataset)} if room == "dataset" else set()
    overview = _table(("set", "size", "licence", "from"), map(_provenance, plugins)) if room == "dataset" else ""
    return "\n".join([*([overview] if overview else []), *(_plugin(each, shared) for each in plugins)])


def _plugin(facts: Mapping[str, Any], shared: set[str]) -> str:
    """Return a plugin's name, what its file says, and its parameters but those that all of its room share."""
    parts = [f"### `{facts['name']}`\n", *(f"{_paragraph(each)}\n" for each in facts["doc"].split("\n\n"))]
    own = [each for each in facts["parameters"] if each["name"] not in shared]
    if own:
        lines = ((f"`{each['name']}`", each["type"], _default(each), each["meaning"]) for each in own)
        parts.append(_table(("parameter", "type", "default", "what it is"), lines))
    return "\n".join(parts)


def _paragraph(text: str) -> str:
    """Return a paragraph of a docstring: one that is laid out as it stands, another in Markdown."""
    if "\n " in f"\n{text}":
        return f"```text\n{textwrap.dedent(text)}\n```"
    return ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", _plain(text))


def _plain(text: str) -> str:
    """Return text in which Markdown finds no signs of its own but backticks."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"[\\*\[\]]|(?<!\w)_|_(?!\w)", r"\\\g<0>", each).replace("<", "&lt;") for each in parts[::2]]
    return "`".join(parts)


def _provenance(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a data set's name, the bytes of its downloads, its licence and its page."""
    source = next(each["value"] for each in facts["contract"] if each["name"] == "source")
    name = f"[`{facts['name']}`](#{facts['name']})"
    if not isinstance(source, dict):
        return name, "–", "–", OWN
    by_hand = f"; by hand: {source['by_hand']}" if source["by_hand"] else ""
    return name, _size(source["downloads"]), source["licence"], f"<{source['page']}>{by_hand}"


def _size(downloads: Sequence[Mapping[str, Any]]) -> str:
    known = [each["size"] for each in downloads if each["size"]]
    if not known:
        return "unknown" if downloads else "–"
    return f"{'at least ' if len(known) < len(downloads) else ''}{sum(known) / 1e6:,.1f} MB"


def _book(found: Mapping[str, str]) -> str:
    return "".join(f"- `{name}`: {_plain(line)}\n" for name, line in found.items())


def _keys(registry: Registry) -> str:
    """Return the keys of a study: a table of those at the top, and one of what stands under each."""
    found = sorted(keys.keys(registry).values(), key=lambda each: each.name)
    parts = [_key_table(each for each in found if "." not in each.name)]
    for top in (each for each in found if each.parts and "." not in each.name):
        under = [each for each in found if each.name.startswith(f"{top.name}.")]
        parts += [f"### Under `{top.name}`\n", _key_table(under)]
    return "\n".join(parts)


def _key_table(found: Iterable[keys.KeyFacts]) -> str:
    lines = []
    for each in found:
        facts = {"required": each.required, "default": each.default}
        none = each.default is None and not each.required and "null" not in each.type
        default = "–" if none or each.parts else _default(facts)
        example = f"`{each.example}`" if each.example else ""
        lines.append((f"`{each.name}`", each.type, default, each.meaning, example))
    return _table(("key", "type", "default", "what it is", "example"), lines)


def _default(facts: Mapping[str, Any]) -> str:
    if facts["required"]:
        return NEEDED
    value = facts["default"]
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value, ensure_ascii=False)}`"


def _table(titles: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [[_cell(each) for each in line] for line in lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in [list(titles), ["---"] * len(titles), *rows])


def _cell(text: str) -> str:
    """Return text for a cell, in which a bar would end it; names in backticks and links stay as they are."""
    ready = text.startswith(("`", "[", "<http"))
    return (text if ready else _plain(" ".join(text.split()))).replace("|", "\\|")

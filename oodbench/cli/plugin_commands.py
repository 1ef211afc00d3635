"""Commands on what there is: list it, say what is known of a name, write a plugin's stub, check it."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.text import Text

from oodbench.cli import screen
from oodbench.cli.reference import completion
from oodbench.errors import UserError, suggestion

if TYPE_CHECKING:
    from oodbench.study.registry import Registry

ROOM = "training, clustering, distance, threshold, posthoc or dataset"
Listed = Annotated[str, typer.Argument(help=f"{ROOM}; recipes, or suites.", autocompletion=completion.rooms)]
Markdown = Annotated[
    Path | None,
    typer.Option(
        help="A file, such as docs/plugins.md, in which to renew the lists between marks.", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="All that is known, as JSON: see docs/commands.md.")]
FORMAT = 1  # of what `--json` prints; raised where what is there is renamed or goes


def list_(room: Listed = "", markdown: Markdown = None, as_json: AsJson = False) -> None:
    """List plugins, recipes and suites by name, a line each; of one room their parameters, of suites their parts."""
    from oodbench.study import recipes, suites
    from oodbench.study.registry import ROOMS, Registry, summary

    books = {
        "recipes": {name: f"{found.about} ({found.source})" for name, found in recipes.book().items()},
        "suites": {name: f"{found.says} ({found.source})" for name, found in suites.book().items()},
    }
    rooms = (*ROOMS, *books)
    registry = Registry()
    if room and room not in rooms:
        of = [each for each in ROOMS if room in registry.sources(each)]
        hint = f"; it is a plugin of {' and '.join(of)}" if of else suggestion(room, rooms)
        raise UserError(f"there is no room '{room}'{hint}")
    if as_json:
        _print_json(registry, [room] if room else rooms)
        return
    if markdown:
        from oodbench.cli.reference.markdown import renew

        renew(markdown, registry, books, room)
        return
    lines = {each: {name: summary(it) for name, it in registry.sources(each).items()} for each in ROOMS} | books
    table = screen.columns()
    table.show_header = False
    for each in [room] if room else rooms:
        table.add_row(Text(each, style="bold"), "")
        for name, line in lines[each].items():
            table.add_row(f"  {name}", screen.text(line))
            if room in ROOMS:
                for parameter in _parameters(registry, room, name):
                    table.add_row("", screen.text(f"    {parameter}"))
            for part, text in suites.told(suites.find(name)) if room == "suites" else ():
                table.add_row("", screen.text(f"{part}: {text}"))
    screen.out.print(table)


def _print_json(registry: Registry, rooms: Sequence[str]) -> None:
    """Print what is known of all plugins of some rooms, recipes and suites, as docs/commands.md says."""
    from oodbench.cli.reference.plugins import described
    from oodbench.store.provenance import version
    from oodbench.study import recipes, suites
    from oodbench.study.registry import ROOMS

    found: dict[str, Any] = {"format": FORMAT, "oodbench": version()}
    sources = [source for room in rooms if room in ROOMS for source in registry.sources(room).values()]
    found["plugins"] = [described(each) for each in sources]
    if "recipes" in rooms:
        found["recipes"] = [
            {"name": name, "about": each.about, "source": each.source} for name, each in recipes.book().items()
        ]
    if "suites" in rooms:
        found["suites"] = [
            {"name": name, "about": each.says, "source": each.source} for name, each in suites.book().items()
        ]
    typer.echo(json.dumps(found, indent=1))


def info(
    name: Annotated[
        str, typer.Argument(help="A plugin, a key of a study, or a column of rows.", autocompletion=completion.names)
    ],
) -> None:
    """Say what is known of a name: of a plugin (ROOM.NAME), a key of a study (recipe.lr) or a column of rows."""
    from oodbench.cli.reference import columns, keys, plugins, shown
    from oodbench.store.columns import MEANING
    from oodbench.study.registry import ROOMS, Registry

    registry = Registry()
    of_study, column = keys.keys(registry), columns.column(name)
    sources, matching = plugins.named(registry, name), keys.matching(of_study, name)
    for each in sources:
        shown.plugin(plugins.described(each))
    for key in matching:
        shown.key(key)
    if column:
        shown.column(column)
    if not (sources or matching or column):
        known = dict.fromkeys(MEANING, "column") | dict.fromkeys(of_study, "key")
        for room in ROOMS:
            known |= {text: room for each in registry.sources(room) for text in (each, f"{room}.{each}")}
        raise UserError(f"there is no plugin, key or column '{name}'{shown.nearest(name, known)}")


def _parameters(registry: Registry, room: str, name: str) -> Iterator[str]:
    """Yield the parameters of a plugin, as its file or its contract declares them; why, where it cannot be used."""
    try:
        found = registry.load(room, name)
    except UserError as error:
        yield str(error)
        return
    types: dict[str, Any] = {}
    for each in reversed(found.__mro__):
        types |= vars(each).get("__annotations__", {})
    for field in dataclasses.fields(found):  # type: ignore[arg-type]
        default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
        yield f"{field.name}: {types[field.name]}{default}"


def new(
    room: Annotated[str, typer.Argument(help=f"{ROOM}.", autocompletion=completion.rooms)],
    name: Annotated[str, typer.Argument(help="The plugin's name: a file of this name is written.")],
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path(),
) -> None:
    """Write the stub of a plugin, to be filled in and checked with `oodbench check`."""
    from oodbench.conformance.templates import write

    path = write(room, name, folder)
    screen.say(f"wrote {path}; fill it in, then: oodbench check {path}")


def check(
    plugin: Annotated[
        str, typer.Argument(help="A plugin's file, its name, or ROOM/NAME.", autocompletion=completion.plugins)
    ],
) -> None:
    """Run the conformance suite on one plugin."""
    from oodbench.conformance.suite import conform, find

    source = find(plugin)
    results = conform(source, Path(os.environ.get("OODBENCH_DATA") or "data"))
    for result in results:
        mark = "[red]failed[/]" if result.problem else "[yellow]skipped[/]" if result.skipped else "[green]passed[/]"
        screen.out.print(f"{mark}  {escape(result.check)}", soft_wrap=True, markup=True)
        if result.problem:
            screen.say(f"        {result.problem}")
    failed = sum(bool(result.problem) for result in results)
    skipped = sum(result.skipped for result in results)
    passed = len(results) - failed - skipped
    screen.say(f"{source.room} {source.name}: {passed} passed, {skipped} skipped, {failed} failed")
    if failed:
        raise typer.Exit(1)

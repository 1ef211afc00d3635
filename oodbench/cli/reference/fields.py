"""The fields of a dataclass as a user meets them: type, default, bounds, and what the comment on each says."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import json
import re
import tokenize
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError
from pydantic_core import to_jsonable_python

from oodbench.study.fingerprints import syntax


@dataclasses.dataclass(frozen=True)
class FieldFacts:
    """A parameter or a key, without its value."""

    name: str
    schema: dict[str, Any]  # JSON Schema of what is allowed, bounds included
    required: bool
    default: Any  # as JSON has it; None also where it is required
    meaning: str  # the comment on it; empty where there is none

    @property
    def type(self) -> str:
        return said(self.schema)

    def shown(self) -> dict[str, Any]:
        """Return it as a mapping that JSON holds."""
        return {"name": self.name, "type": self.type, **dataclasses.asdict(self)}


def fields(cls: type) -> list[FieldFacts]:
    """Return the fields of a dataclass, in their order."""
    hints, found = get_type_hints(cls, include_extras=True), comments(cls)
    return [_facts(each, hints[each.name], found.get(each.name, "")) for each in dataclasses.fields(cls)]


def _facts(field: dataclasses.Field[Any], hint: Any, meaning: str) -> FieldFacts:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    required = default is dataclasses.MISSING
    return FieldFacts(field.name, schema(hint), required, None if required else plain(default), meaning)


def plain(value: Any) -> Any:
    """Return a value as JSON holds it, a named tuple as a mapping."""
    if hasattr(value, "_asdict"):
        return {name: plain(each) for name, each in value._asdict().items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return to_jsonable_python(value, fallback=str)


def schema(hint: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type; an empty one where pydantic knows none."""
    try:
        found = TypeAdapter(hint).json_schema()
    except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError):
        return {}
    return {} if "$ref" in json.dumps(found) else found


def said(schema: dict[str, Any]) -> str:
    """Return in a few words what a JSON Schema allows."""
    if several := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(said(each) for each in several))
    if "const" in schema or "enum" in schema:
        return " | ".join(str(each) for each in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type", "anything")
    if kind in ("integer", "number"):
        return _bounded(kind, schema)
    if kind == "array":
        return _listed(schema)
    if kind == "string" and "pattern" in schema:
        return f"text of the form {schema['pattern']}"
    return {"boolean": "true | false", "null": "null", "string": "text", "object": "mapping"}.get(kind, str(kind))


def _listed(schema: dict[str, Any]) -> str:
    if parts := schema.get("prefixItems"):
        return f"[{', '.join(said(each) for each in parts)}]"
    items = said(schema.get("items", {}))
    return f"list of ({items})" if " or " in items else f"list of {items}"


def _bounded(kind: str, schema: dict[str, Any]) -> str:
    bounds = (
        *(("from", "minimum"), ("above", "exclusiveMinimum")),
        *(("to", "maximum"), ("below", "exclusiveMaximum")),
    )
    return " ".join([kind, *(f"{word} {schema[name]:g}" for word, name in bounds if name in schema)])


# ---- comments ------------------------------------------------------------------------------------


def comments(cls: type) -> dict[str, str]:
    """Return what stands behind the fields of a class and of those it derives from, or else above them."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if "__annotations__" in vars(each) and (file := _file(each)):
            found |= _read(file).get(each.__name__, {})
    return found


def _file(cls: type) -> Path | None:
    try:
        return Path(inspect.getfile(cls))
    except (TypeError, OSError):  # a built-in, or made by a program
        return None


@cache
def _read(file: Path) -> dict[str, dict[str, str]]:
    """Return the comments on annotated names of a file, by class."""
    lines = _comment_lines(file)
    found: dict[str, dict[str, str]] = {}
    for node in ast.walk(syntax(file)):
        if isinstance(node, ast.ClassDef):
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            names = {each.target.id: each for each in fields if isinstance(each.target, ast.Name)}
            found[node.name] = {name: text for name, each in names.items() if (text := _of(each, lines))}
    return found


def _comment_lines(file: Path) -> dict[int, tuple[str, bool]]:
    """Return the comment on each line that has one, and whether it stands alone."""
    with tokenize.open(file) as stream:
        text = stream.read()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = [token for token in tokens if token.type == tokenize.COMMENT]
    return {t.start[0]: (re.sub(r"^#\s*", "", t.string), not t.line[: t.start[1]].strip()) for t in found}


def _of(node: Any, lines: dict[int, tuple[str, bool]]) -> str:
    behind = [lines[i][0] for i in range(node.lineno, node.end_lineno + 1) if i in lines]
    if behind:
        return " ".join(behind)
    above: list[str] = []
    at = node.lineno - 1
    while at in lines and lines[at][1]:
        above.insert(0, lines[at][0])
        at -= 1
    return " ".join(above)

"""``docs/settings.md`` from the settings themselves: the literal below each field is its description.

``python -m hub.settings_docs`` prints the page; ``make docs`` writes it and a test compares.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import sys
import textwrap
import typing
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from auth.secret import Secret
from hub.settings import Settings
from hub.settings_load import WELL_KNOWN, fields_of, variable
from hub.settings_values import element_type, format_duration, unwrap

HEAD = """\
# Settings

This page is made from the program by `make docs`; do not edit it.

Settings come from one file (`--config FILE`, TOML or JSON, or the variable `HUB_CONFIG`), from environment variables,
which win over the file, and from arguments such as `--port`, which win over both. Names and nesting are those of
Centrifugo v6 for everything that it has too. A name that is not listed here is an error.

A variable's name is `HUB_`, then the setting's path in capitals joined by `_`. Lists and objects are JSON there; a list
of texts may also be separated by spaces. Durations are text with a unit: `250ms`, `30s`, `5m`, `1h30m`, `720h`, `30d`.

Variables that hosting platforms set are honoured unless one of ours says otherwise: {well_known}.
"""


class Described(NamedTuple):
    """One setting as the page shows it."""

    path: str
    kind: str
    default: str
    meaning: str


def describe() -> Iterator[tuple[str, str, list[Described]]]:
    """Yield (section's path, what it is about, its settings), in the order of the tree."""
    yield from _section(Settings, Settings(), "")


def page() -> str:
    """The whole page."""
    well_known = ", ".join(f"`{name}` (`{path}`)" for name, path in WELL_KNOWN.items())
    lines = [HEAD.format(well_known=well_known)]
    for path, about, settings in describe():
        if not settings:
            continue
        lines.append(f"\n## {'`' + path + '`' if path else 'Top level'}\n\n{about}\n")
        lines.append("| setting | type | default | meaning |\n|---|---|---|---|")
        for item in settings:
            note = "" if "[]" in item.path else f"<br>`{variable(item.path)}`"
            meaning = item.meaning.replace("|", "\\|")
            lines.append(f"| `{item.path}`{note} | {item.kind} | {item.default} | {meaning} |")
    return "\n".join(lines) + "\n"


def documentation(cls: type) -> dict[str, str]:
    """Descriptions of a dataclass's fields by name, those of its bases included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for field, after in zip(tree.body, [*tree.body[1:], None], strict=True):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            literal = (
                after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            )
            if isinstance(literal, str):
                found[field.target.id] = " ".join(literal.split()).replace("``", "`")
    return found


def _section(cls: type, defaults: Any, path: str) -> Iterator[tuple[str, str, list[Described]]]:
    literals = documentation(cls)
    settings: list[Described] = []
    below: list[tuple[type, Any, str]] = []
    for name, hint in fields_of(cls).items():
        here = f"{path}.{name}" if path else name
        kind, plain = element_type(hint)
        default = getattr(defaults, name, None)
        inner = unwrap(plain)[0]
        nested = dataclasses.is_dataclass(inner) and isinstance(inner, type)
        if nested:
            below.append((inner, default if not kind else _example(inner), f"{here}[]" if kind else here))
        if nested and not kind:
            continue
        if name not in literals:
            raise LookupError(f"{cls.__module__}.{cls.__qualname__}.{name} has no description below it")
        missing = not hasattr(defaults, name)
        shown = "" if missing else "`[]`" if nested else _default(default)
        settings.append(Described(here, _kind(hint), shown, literals[name]))
    yield path, _about(cls), settings
    for inner, default, here in below:
        yield from _section(inner, default, here)


def _example(cls: type) -> Any:
    """The defaults of a list's elements, as far as they have some."""
    values = {}
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            values[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            values[field.name] = field.default_factory()
    return type("Defaults", (), values)()


def _about(cls: type) -> str:
    first = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return re.sub(r"^``[\w.*]+``: (\w)", lambda match: match[1].upper(), first).replace("``", "`")


def _kind(hint: Any) -> str:
    kind, plain = element_type(hint)
    if kind == "list":
        inner = _kind(plain)
        return f"list of {inner}{'s' if inner in ('text', 'secret', 'object') else ''}"
    if kind == "map":
        return "object"
    plain = unwrap(plain)[0]
    if typing.get_origin(plain) is typing.Literal:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in typing.get_args(plain))
    names = {bool: "true or false", int: "number", float: "number", str: "text", Secret: "secret"}
    return {**names, timedelta: "duration", Path: "path"}.get(plain, "object")


def _default(value: object) -> str:
    if isinstance(value, timedelta):
        return f"`{format_duration(value)}`"
    if isinstance(value, Secret | Path):
        value = str(value)
    if value is None:
        return ""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


if __name__ == "__main__":
    sys.stdout.write(page())

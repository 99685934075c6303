"""Settings from one file, the environment and the command line, in that order; the later wins.

Everything that is wrong is found in one go and told together, one sentence each, with the setting's full name, where it
came from and what would be right. An unknown name is an error that suggests the nearest known one.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from hub import settings_names as names
from hub.settings import Settings
from hub.settings_values import Wrong, collect, convert, element_type, is_secret, show, show_scheme, unwrap

PREFIX = "HUB_"
WELL_KNOWN = {
    "PORT": "http_server.port",
    "DATABASE_URL": "storage.url",
    "REDIS_URL": "engine.redis.address",
    "CLOUDAMQP_URL": "tasks.broker",
    "AMQP_URL": "tasks.broker",
}
"""Variables that hosting platforms set; one of ours for the same setting wins over them, a file does not."""
LARGEST_FILE = 16 * 1024 * 1024
LONGEST_PROBLEM = 1000

T = TypeVar("T")


class SettingsError(ValueError):
    """The settings cannot be used; ``problems`` are sentences for a person, without any secret in them."""

    def __init__(self, problems: list[str]) -> None:
        # Names come from the file as they are; each problem stays one line that a terminal can show.
        self.problems = [_one_line(problem) for problem in problems]
        super().__init__("\n".join(self.problems))


def _one_line(text: str) -> str:
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return line if len(line) <= LONGEST_PROBLEM else f"{line[: LONGEST_PROBLEM // 2]} … {line[-LONGEST_PROBLEM // 2 :]}"


class Given(NamedTuple):
    """One value as it was given. ``text`` means that it came as text and may be meant as something else."""

    value: object
    source: str
    text: bool = False


Tree = dict[str, "Tree | Given"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """Valid types and ranges; ``sources`` tells for each setting that was given where it came from."""

    settings: Settings
    sources: Mapping[str, str]

    def given(self, path: str) -> bool:
        """Whether this setting, or any below it, was given."""
        return any(key == path or key.startswith((path + ".", path + "[")) for key in self.sources)


def load(
    config: Path | None, environ: Mapping[str, str], arguments: Mapping[str, tuple[str, str]] | None = None
) -> Loaded:
    """Read the settings; raises ``SettingsError``.

    ``arguments`` maps a setting's path to (name of the command line argument, its text).
    """
    problems: list[str] = []
    tree = read_file(config, problems) if config is not None else {}
    _overlay_environment(tree, environ, problems)
    for path, (argument, text) in (arguments or {}).items():
        _put(tree, path, Given(text, argument, True))
    return build(tree, problems)


def from_mapping(values: Mapping[str, Any], source: str = "settings") -> Loaded:
    """Settings from plain nested values, as a file has them; raises ``SettingsError``."""
    return build(_wrap(values, source), [])


def build(tree: Tree, problems: list[str]) -> Loaded:
    """Make the settings of a tree of given values; raises ``SettingsError`` with these and all further problems."""
    builder = _Builder(problems)
    settings = builder.dataclass(Settings, tree, "", base=Settings())
    if problems or settings is None:
        raise SettingsError(problems)
    return Loaded(settings, builder.sources)


def read_file(path: Path, problems: list[str]) -> Tree:
    """Read a TOML or JSON file, by its suffix."""
    if path.suffix not in (".toml", ".json"):
        problems.append(f"The settings file {path} must end in .toml or .json.")
        return {}
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        if len(raw) > LARGEST_FILE:
            problems.append(f"The settings file {path} is larger than {LARGEST_FILE} bytes.")
            return {}
        text = raw.decode("utf-8-sig")
        values: Any
        if path.suffix == ".toml":
            values = tomllib.loads(text)
        else:
            values = json.loads(text, object_pairs_hook=_no_repeats)
    except OSError as error:
        problems.append(f"The settings file {path} cannot be read: {error.strerror or error}.")
        return {}
    except UnicodeDecodeError:
        problems.append(f"The settings file {path} is not UTF-8 text.")
        return {}
    except RecursionError:
        return _too_deep(path, problems)
    except ValueError as error:
        problems.append(f"The settings file {path} is not valid {path.suffix[1:].upper()}: {error}.")
        return {}
    if not isinstance(values, dict):
        problems.append(f"The settings file {path} must hold an object, not {show(values, secret=False)}.")
        return {}
    try:
        return _wrap(values, path.name)
    except RecursionError:
        return _too_deep(path, problems)


def _too_deep(path: Path, problems: list[str]) -> Tree:
    problems.append(f"The settings file {path} is nested too deeply.")
    return {}


def paths(cls: type = Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, type) of every setting; a dataclass comes before its fields."""
    for name, hint in fields_of(cls).items():
        path = f"{prefix}{name}"
        yield path, hint
        inner = unwrap(hint)[0]
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            yield from paths(inner, path + ".")


def fields_of(cls: type) -> dict[str, Any]:
    """Names and full types of a dataclass's fields, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def variable(path: str) -> str:
    """The name of the environment variable for a setting."""
    return PREFIX + path.upper().replace(".", "_")


def _required(cls: type) -> list[str]:
    return [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        repeated = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f'the key "{repeated}" stands twice in one object')
    return made


def _wrap(values: Mapping[str, Any], source: str) -> Tree:
    return {
        key: _wrap(value, source) if isinstance(value, Mapping) else Given(value, source)
        for key, value in values.items()
    }


def _unwrap(node: Tree | Given) -> object:
    return node.value if isinstance(node, Given) else {key: _unwrap(value) for key, value in node.items()}


def _source(node: Tree | Given) -> str:
    if isinstance(node, Given):
        return node.source
    return next((_source(value) for value in node.values()), "settings")


def _put(tree: Tree, path: str, node: Tree | Given) -> None:
    """Lay a value, or a whole branch, over what is there."""
    *parents, last = path.split(".")
    for name in parents:
        below = tree.get(name)
        if not isinstance(below, dict):
            below = tree[name] = {}
        tree = below
    present = tree.get(last)
    if isinstance(node, dict) and isinstance(present, dict):
        for key, value in node.items():
            _put(present, key, value)
    else:
        tree[last] = node


def _overlay_environment(tree: Tree, environ: Mapping[str, str], problems: list[str]) -> None:
    known = {variable(path): (path, hint) for path, hint in paths()}
    for name, path in WELL_KNOWN.items():
        text = environ.get(name)
        if not text:
            continue
        source = f"environment variable {name}"
        if name == "REDIS_URL":
            _put(tree, path, Given([text], source))
            _put(tree, "engine.type", Given("redis", source))
        else:
            _put(tree, path, Given(text, source, True))
    # A variable for a whole branch comes before those for single settings in it.
    for name in sorted((name for name in environ if name.startswith(PREFIX)), key=lambda name: (name.count("_"), name)):
        if name in names.OTHER_VARIABLES:
            continue
        if name not in known:
            if names.injected(name, environ):
                continue
            problems.append(names.unknown_variable(name, list(known)))
            continue
        path, hint = known[name]
        source = f"environment variable {name}"
        if not environ[name] and is_secret(hint):
            # An empty value stands for a secret that did not arrive: to go on with a made one would hide that.
            problems.append(f"{path} ({source}) is there but empty; give it a value or unset it.")
            continue
        given: Tree | Given | None = _from_text(hint, environ[name], source)
        if given is None:
            problems.append(f"{path} ({source}) must be JSON: a list or object of the settings below it.")
        else:
            _put(tree, path, given)


def _from_text(hint: Any, text: str, source: str) -> Tree | Given | None:
    """A variable's value; lists and objects are JSON, and a list of texts may also be separated by spaces."""
    kind, element = element_type(hint)
    if not kind and not dataclasses.is_dataclass(element):
        return Given(text, source, True)
    if kind == "list" and not text.lstrip().startswith("[") and unwrap(element)[0] is str:
        return Given(text.split(), source)
    try:
        value = json.loads(text, object_pairs_hook=_no_repeats)
        # An empty object has nothing in it that could tell where it came from.
        branch = isinstance(value, dict) and (value or kind != "list")
        return _wrap(value, source) if branch else Given(value, source)
    except (ValueError, RecursionError):
        return None


class _Builder:
    """Makes dataclasses of a tree and gathers what is wrong on the way."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        self.sources: dict[str, str] = {}

    def dataclass(self, cls: type[T], tree: Tree, path: str, source: str = "", base: T | None = None) -> T | None:
        """An instance of ``cls`` with the tree's values; what the tree leaves out is as in ``base``, if given."""
        hints = fields_of(cls)
        before = len(self.problems)
        values: dict[str, Any] = {}
        for name, node in tree.items():
            here = f"{path}.{name}" if path else name
            if name in hints:
                values[name] = self.value(hints[name], node, here, getattr(base, name, None))
            else:
                self.problems.append(names.unknown(here, _source(node), list(hints), [key for key, _ in paths()]))
        if base is None:
            needed = [name for name in _required(cls) if name not in values]
            self.problems.extend(f"{path}.{name} ({source}) is missing." for name in needed)
        if len(self.problems) > before:
            return None
        try:
            return cls(**values) if base is None else dataclasses.replace(base, **values)  # type: ignore[type-var]
        except ValueError as error:
            self.problems.append(f"{path} ({source}): {error}.")
            return None

    def value(self, hint: Any, node: Tree | Given, path: str, default: Any = None) -> Any:
        kind, plain = element_type(hint)
        source = _source(node)
        if kind == "map":
            return self.map(plain, node, path)
        if kind == "list":
            return self.list(hint, plain, node, path)
        if dataclasses.is_dataclass(plain) and isinstance(plain, type):
            if isinstance(node, dict):
                return self.dataclass(plain, node, path, source, default if isinstance(default, plain) else None)
            self.wrong(path, node, hint, "must be an object (a table) of settings")
            return None
        if isinstance(node, dict):
            self.wrong(path, Given(_unwrap(node), source), hint, "must be a single value")
            return None
        self.sources[path] = source
        try:
            return convert(hint, node.value, text=node.text)
        except Wrong as error:
            self.wrong(path, node, hint, str(error))
            return None

    def map(self, element: Any, node: Tree | Given, path: str) -> dict[str, Any] | None:
        if not isinstance(node, dict):
            self.wrong(path, node, element, "must be an object (a table)")
            return None
        return {key: self.value(element, value, f"{path}.{key}") for key, value in node.items()}

    def list(self, hint: Any, element: Any, node: Tree | Given, path: str) -> Any:
        value = _unwrap(node)
        source = _source(node)
        if isinstance(value, str) and unwrap(element)[0] is str:
            value = [value]
        if not isinstance(value, list | tuple):
            self.wrong(path, Given(value, source), hint, "must be a list")
            return None
        self.sources[path] = source
        made = []
        for index, item in enumerate(value):
            inner = _wrap(item, source) if isinstance(item, Mapping) else Given(item, source)
            made.append(self.value(element, inner, f"{path}[{index}]"))
        try:
            return collect(hint, made)
        except TypeError:
            return None  # an element that is wrong, and told already

    def wrong(self, path: str, node: Tree | Given, hint: Any, right: str) -> None:
        value = _unwrap(node)
        if isinstance(value, str) and dataclasses.is_dataclass(element_type(hint)[1]):
            shown = "text"  # perhaps the whole object in quotes, with secrets in it
        elif isinstance(value, str) and names.holds_credentials(path):
            shown = show_scheme(value)
        else:
            shown = show(value, secret=is_secret(hint) or names.sounds_secret(path))
        self.problems.append(f"{path} ({_source(node)}) is {shown}, but {right}.")

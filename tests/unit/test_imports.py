"""The rules that hold the house together: who imports whom, what is installed, what lock files may say."""

from __future__ import annotations

import ast
import importlib.metadata
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT: dict[str, set[str]] = {
    "storage": set(),
    "auth": {"storage"},
    "channels": {"storage"},
    "tasks": {"storage", "channels"},
    "hub": {"storage", "auth", "channels", "tasks"},
}


def modules() -> dict[str, Path]:
    """Our modules by name."""
    found = {}
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: set[str], *, at_import_time: bool) -> Iterator[str]:
    """Our own modules that a module imports; within functions too unless ``at_import_time``."""
    todo: list[ast.AST] = [ast.parse(path.read_text("utf-8"), str(path))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and at_import_time:
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING") and at_import_time:
            todo.extend(node.orelse)
            continue
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            assert node.module
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [target if target in known else node.module for target in targets]
        yield from (target for target in targets if target.split(".")[0] in MAY_IMPORT and target != name)
        todo.extend(ast.iter_child_nodes(node))


def test_a_package_imports_only_what_it_may() -> None:
    found = modules()
    wrong = [
        f"{name} imports {target}"
        for name, path in found.items()
        for target in imports(name, path, set(found), at_import_time=False)
        if target.split(".")[0] not in MAY_IMPORT[name.split(".")[0]] | {name.split(".")[0]}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_modules_import_each_other_in_a_circle() -> None:
    found = modules()
    graph = {name: set(imports(name, path, set(found), at_import_time=True)) for name, path in found.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("a circle of imports: " + " -> ".join(reversed(error.args[1])))


def test_every_target_of_an_import_exists() -> None:
    found = modules()
    missing = {
        f"{name} imports {target}"
        for name, path in found.items()
        for target in imports(name, path, set(found), at_import_time=False)
        if target not in found
    }
    assert not missing


def test_passlib_is_not_installed_beside_libpass() -> None:
    # Both install a package named passlib; pip warns of nothing and the later one wins.
    names = {(distribution.metadata["Name"] or "").lower() for distribution in importlib.metadata.distributions()}
    assert "passlib" not in names
    assert "libpass" in names


@pytest.mark.parametrize("lock", ["base.txt", "dev.txt"])
def test_lock_files_pin_by_hash_and_name_no_address(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text("utf-8")
    assert "://" not in text
    assert "index-url" not in text
    assert not re.search(r"^passlib\b", text, re.MULTILINE)
    entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    unpinned = [
        entry.split()[0] for entry in entries if entry.strip() and ("==" not in entry or "--hash=" not in entry)
    ]
    assert not unpinned


def test_dev_holds_base_at_the_same_versions() -> None:
    def pins(lock: str) -> set[str]:
        text = (ROOT / "requirements" / lock).read_text("utf-8")
        return set(re.findall(r"^([\w.-]+(?:\[[\w,]+\])?==[^ \\;]+)", text, re.MULTILINE))

    assert pins("base.txt") <= pins("dev.txt")


def test_the_javascript_lock_file_names_no_registry() -> None:
    text = (ROOT / "tests" / "acceptance" / "js" / "package-lock.json").read_text("utf-8")
    assert '"integrity"' in text
    assert '"resolved"' not in text

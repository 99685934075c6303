"""Numbered SQL migrations: what there is, what a database has, and what is to be done about the difference.

A migration is a file ``NNNN_pre_name.sql`` or ``NNNN_post_name.sql``. *Pre* ones run before new code starts and must
suit the old code too, *post* ones run when no old code is left. This module decides and does no SQL; each home applies
the plan in its own way and keeps name and checksum of what it applied.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from storage.errors import StoreUnusable

_FILE = re.compile(r"(\d{4})_(pre|post)_([a-z0-9_]+)\.sql")

PHASES = ("pre", "post")


class Migration(NamedTuple):
    """One migration file; ``name`` is the file's name without its ending."""

    number: int
    phase: str
    name: str
    sql: str
    checksum: str


def load(folder: Path) -> list[Migration]:
    """The migrations of a folder in order; raises ``StoreUnusable`` if one is misnamed or numbered twice."""
    found: list[Migration] = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise StoreUnusable(f"migration {path} must be named like 0001_pre_name.sql or 0001_post_name.sql")
        sql = path.read_text(encoding="utf-8")
        checksum = hashlib.sha256(sql.encode()).hexdigest()
        if found and found[-1].number == int(match[1]):
            raise StoreUnusable(f"migrations {found[-1].name} and {path.stem} have the same number")
        found.append(Migration(int(match[1]), match[2], path.stem, sql, checksum))
    if not found:
        raise StoreUnusable(f"there are no migrations in {folder}: the hub is not installed completely, do it again")
    return found


def plan(
    known: Sequence[Migration], applied: Mapping[str, str], *, database: str, phases: Collection[str] = PHASES
) -> list[Migration]:
    """Which of the ``known`` migrations are to run now, in order.

    ``applied`` maps the names that the database has to their checksums; ``database`` names it in messages. Raises
    ``StoreUnusable`` when the database is newer than this program, or was made with another text of a migration.
    """
    by_name = {migration.name: migration for migration in known}
    for name, checksum in sorted(applied.items()):
        migration = by_name.get(name)
        if migration is None:
            raise StoreUnusable(
                f"{database} was written by a newer hub (it has migration {name}, this program knows them up to"
                f" {known[-1].name}): run that version or a later one"
            )
        if migration.checksum != checksum:
            raise StoreUnusable(
                f"{database} was made with another text of migration {name} than this program has:"
                f" run the version of the hub that made it"
            )
    return [migration for migration in known if migration.name not in applied and migration.phase in phases]

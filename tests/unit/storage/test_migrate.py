from __future__ import annotations

from pathlib import Path

import pytest

from storage import migrate
from storage.errors import StoreUnusable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("0002_post_drop.sql", "0001_pre_make.sql", "0003_pre_more.sql"):
        (tmp_path / name).write_text(f"-- {name}\n")
    return tmp_path


def test_migrations_come_in_order_with_phase_and_checksum(folder: Path) -> None:
    found = migrate.load(folder)
    assert [(one.number, one.phase, one.name) for one in found] == [
        (1, "pre", "0001_pre_make"),
        (2, "post", "0002_post_drop"),
        (3, "pre", "0003_pre_more"),
    ]
    assert found[0].sql == "-- 0001_pre_make.sql\n"
    assert len({one.checksum for one in found}) == 3


@pytest.mark.parametrize("name", ["1_pre_x.sql", "0004_x.sql", "0004_mid_x.sql", "0004_pre_X.sql", "0004_pre_.sql"])
def test_a_misnamed_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).touch()
    with pytest.raises(StoreUnusable, match="must be named like"):
        migrate.load(folder)


def test_a_number_used_twice_is_refused(folder: Path) -> None:
    (folder / "0003_post_again.sql").touch()
    with pytest.raises(StoreUnusable, match="same number"):
        migrate.load(folder)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="not installed completely"):
        migrate.load(tmp_path)


def test_only_what_is_missing_is_planned(folder: Path) -> None:
    known = migrate.load(folder)
    assert migrate.plan(known, {}, database="db") == known
    assert migrate.plan(known, {known[0].name: known[0].checksum}, database="db") == known[1:]
    assert migrate.plan(known, {one.name: one.checksum for one in known}, database="db") == []


def test_a_phase_can_be_left_for_later(folder: Path) -> None:
    known = migrate.load(folder)
    assert migrate.plan(known, {}, database="db", phases=("pre",)) == [known[0], known[2]]
    applied = {one.name: one.checksum for one in (known[0], known[2])}
    assert migrate.plan(known, applied, database="db", phases=("post",)) == [known[1]]


def test_a_newer_database_is_refused(folder: Path) -> None:
    with pytest.raises(StoreUnusable, match=r"^db was written by a newer hub \(it has migration 0009_pre_new, .*0003"):
        migrate.plan(migrate.load(folder), {"0009_pre_new": "x"}, database="db")


def test_another_text_of_a_migration_is_refused(folder: Path) -> None:
    with pytest.raises(StoreUnusable, match="another text of migration 0001_pre_make"):
        migrate.plan(migrate.load(folder), {"0001_pre_make": "x"}, database="db")


def test_the_migrations_of_this_program_load() -> None:
    root = Path(migrate.__file__).parent / "migrations"
    homes = [home for home in root.iterdir() if home.is_dir()]
    assert homes
    for home in homes:
        assert migrate.load(home)

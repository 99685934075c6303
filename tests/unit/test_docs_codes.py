"""The tables of docs/protocol.md say what hub/codes.py does, and the pages lead to one another."""

from __future__ import annotations

import re
from pathlib import Path

from hub import codes

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text("utf-8")


def table(title: str) -> list[list[str]]:
    """The rows of the table under a heading, without the sentence in their last column."""
    section = PROTOCOL.partition(f"\n### {title}\n")[2].partition("\n#")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    assert all(row[-1] for row in rows), "a code without a word on when it comes"
    return [row[:-1] for row in rows[2:]]


def yes(value: bool) -> str:
    return "yes" if value else "no"


def test_errors() -> None:
    assert table("Errors") == [[str(each.code), each.message, yes(each.temporary)] for each in codes.ERRORS]


def test_disconnects() -> None:
    assert table("Disconnects") == [[str(each.code), each.reason, yes(each.reconnect)] for each in codes.DISCONNECTS]


def test_unsubscribes() -> None:
    assert table("Unsubscribes") == [
        [str(each.code), each.reason, yes(each.code >= 2500)] for each in codes.UNSUBSCRIBES
    ]


def test_each_code_is_there_once() -> None:
    for found in (codes.ERRORS, codes.DISCONNECTS, codes.UNSUBSCRIBES):
        numbers = [each.code for each in found]
        assert len(set(numbers)) == len(numbers)


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text("utf-8")):
            if "://" in target:
                continue
            led_to = page.parent / target if target else page
            assert led_to.exists(), f"{page.name} leads to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", led_to.read_text("utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
                assert anchor in anchors, f"{page.name} leads to {target}#{anchor}"

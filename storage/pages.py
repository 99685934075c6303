"""Pages of publications within a bound of bytes."""

from __future__ import annotations

from collections.abc import Iterable

from storage.contract import Publication


def up_to(publications: Iterable[Publication], max_bytes: int) -> list[Publication]:
    """The first of ``publications`` until their payloads have ``max_bytes`` together (0 = all of them), at least one."""
    if not max_bytes:
        return list(publications)
    page: list[Publication] = []
    size = 0
    for each in publications:
        page.append(each)
        size += len(each.data)
        if size >= max_bytes:
            break
    return page

"""Pages of a list: rows after or before a given one, ordered by time and then by id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import tuple_

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Mapped

T = TypeVar("T")


@dataclass(frozen=True)
class Page:
    """A part of a list: at most `limit` after (or before) one of its ids, newest first by default."""

    limit: int = 20
    is_ascending: bool = False
    after: str | None = None
    before: str | None = None

    @property
    def is_backwards(self) -> bool:
        return self.before is not None and self.after is None


def paged(connection: Connection, query: Select[Any], at: Mapped[float], name: Mapped[str], page: Page) -> Select[Any]:
    """Return the query for a page and one more row; rows before a cursor are read backwards from it."""
    is_ascending = page.is_ascending != page.is_backwards
    cursor = page.before if page.is_backwards else page.after
    place = tuple_(at, name)
    if cursor is not None:
        known = connection.execute(query.with_only_columns(at).where(name == cursor)).scalar_one_or_none()
        if known is not None:
            query = query.where(place > (known, cursor) if is_ascending else place < (known, cursor))
    order = (at.asc(), name.asc()) if is_ascending else (at.desc(), name.desc())
    return query.order_by(*order).limit(page.limit + 1)


def in_order(items: list[T], page: Page) -> list[T]:
    """Return rows in page order: a backward page is reversed, and the extra row stays last."""
    return [*reversed(items[: page.limit]), *items[page.limit :]] if page.is_backwards else items

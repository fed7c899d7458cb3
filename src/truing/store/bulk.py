"""Very many rows into a table: the statement is compiled once, and each value goes to the driver as the table's own types bind it.

SQLAlchemy's insert of a list of dicts walks every value of every row through its compiler, which takes longer than the database takes to store it.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Table, insert
from sqlalchemy.orm import Session

from truing.store.tables import Base, Utc

REMEMBERED = 4096  # moments: an import's rows often have one and the same


class Inserts:
    """Inserts into some columns of a table, within one session's transaction."""

    def __init__(self, session: Session, table: type[Base], columns: Sequence[str]) -> None:
        """Compile the statement.

        Args:
            columns: in the order of the table; all that have a default of Python's must be among them, the others are null or the database's default.
        """
        assert isinstance(table.__table__, Table)
        self._connection = session.connection()
        compiled = insert(table.__table__).compile(dialect=self._connection.dialect, column_keys=list(columns))
        if list(compiled.params) != list(columns):
            raise ValueError(f"the columns of {table.__tablename__} are {', '.join(compiled.params)}, in this order")
        self._sql, self._names = compiled.string, None if compiled.positional else list(columns)
        self._binds = {name: self._bind(table.__table__, name) for name in columns}

    def bound(self, column: str, value: Any) -> Any:
        """A value as the driver takes it, for `write` with that column `ready`."""
        bind = self._binds[column]
        return bind(value) if bind else value

    def write(self, rows: Sequence[Sequence[Any]], *, ready: Sequence[str] = ()) -> None:
        """Insert rows, each with a value for every column.

        Args:
            ready: columns whose values are `bound` already, since many rows share them.
        """
        if not rows:
            return
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for place, (name, bind) in enumerate(self._binds.items()):
            if bind is not None and name not in ready:
                columns[place] = list(map(bind, columns[place]))
        bound = list(zip(*columns, strict=True))
        self._connection.exec_driver_sql(self._sql, bound if self._names is None else [dict(zip(self._names, row, strict=True)) for row in bound])

    def _bind(self, table: Table, column: str) -> Callable[[Any], Any] | None:
        dialect, kind = self._connection.dialect, table.c[column].type
        bind = kind.dialect_impl(dialect).bind_processor(dialect)
        return lru_cache(REMEMBERED)(bind) if bind is not None and isinstance(kind, Utc) else bind

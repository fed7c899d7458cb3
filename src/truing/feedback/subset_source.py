"""A file of rows that belong to subsets, as benchmarks have them: the subset of each row, lists in the cells of a table, and parquet."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from truing.errors import BadRow, UserError
from truing.feedback.formats.record import Source
from truing.store.archives import data_name
from truing.store.rows import Row, bad_row, parquet_values, parse_json, require_clean

SUBSETS = ("subset", "category", "section")  # the first of these columns that a row has names its subset
LISTS = ("[{", '["', "[[")  # so begins a list that a cell of a table holds as text


class SubsetSource(Source):
    """A file whose rows are looked at for their subset as they go by, and that may be parquet."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._subsets: dict[int, str] = {}
        self._default = path.name.removesuffix(".gz").removesuffix(".zip").rpartition(".")[0] or path.name

    def rows(self) -> Iterator[Row | BadRow]:
        """Its rows; lists that cells of a table hold as text are read."""
        parquet = self.path.suffix == ".parquet"
        written = not parquet and data_name(self.path).lower().endswith((".csv", ".tsv"))
        for row in self._parquet_rows() if parquet else super().rows():
            if isinstance(row, BadRow) or not isinstance(row.value, dict):
                yield row
                continue
            name = next((row.value[key] for key in SUBSETS if isinstance(row.value.get(key), str) and row.value[key].strip()), None)
            if name is not None:
                self._subsets[row.line] = name.strip()
            yield Row(row.line, _lists_read(row.value)) if written else row

    def _parquet_rows(self) -> Iterator[Row | BadRow]:
        return (_clean(self.path.name, number, value) for number, value in enumerate(parquet_values(self.path), start=1))

    def subset(self, line: int) -> str:
        """The subset of a row that went by: its own, or the file's name."""
        return self._subsets.get(line, self._default)


def _lists_read(cells: Mapping[str, Any]) -> dict[str, Any]:
    """The cells, those of a preference that are lists as lists; what isn't JSON stays text."""
    found = dict(cells)
    for key in ("prompt", "chosen", "rejected"):
        if isinstance(cells.get(key), str) and cells[key].lstrip().startswith(LISTS):
            try:
                found[key] = parse_json(cells[key])
            except UserError:
                continue  # a text that begins like a list
    return found


def _clean(name: str, number: int, value: dict[str, Any]) -> Row | BadRow:
    """A row of parquet; of its columns, those that JSON can't hold (times, bytes) are passed over, since no format has any."""
    kept = {key: cell for key, cell in value.items() if isinstance(cell, str | int | float | bool | list | dict) or cell is None}
    try:
        require_clean(kept)
    except UserError as error:
        return bad_row(name, number, error)
    return Row(number, kept)

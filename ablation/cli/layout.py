"""Lays a table of text cells out within the width of a terminal: columns go before letters, and what went is said."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablation.output import cells, folded, longest_piece, plain, wrapped

if TYPE_CHECKING:
    from ablation.report.table import Table

PRIORITIES = (
    "difference",
    "A",
    "B",
    "mean",
    "difference to baseline",
    "95 % interval",
    "can be removed",
    "parameters",
    "time per run",
    "FLOPs per image",
    "FLOPs per sequence",
    "FLOPs per example",
    "FLOPs",
    "SD",
    "training",
    "changes",
    "better in",
    "type",
    "peak memory",
    "per epoch",
    "runs",
    "min to max",
    "output",
    "input",
    "dominated by",
    "fit",
    "jobs at a time",
    "free disk",
    "state folder",
    "clock",
    "host",
    "versions",
    "folder",
)
"""Columns of all tables, the least important last: it is left out first. Others are before it, a first column never."""
GAP = "  "
INDENT = "  "
"""Of what goes on with a cell of text, which else would look like a row of its own."""
WHOLE = 24
"""Columns up to which a cell of text is not broken."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Column:
    """A column's cells, its head first; `least` is the width at which no word of it is broken."""

    head: str
    cells: tuple[str, ...]
    is_text: bool

    @property
    def whole(self) -> int:
        return max(map(cells, (self.head, *self.cells)))

    @property
    def least(self) -> int:
        return max(longest_piece(self.head), *map(self._least_of, self.cells), 1)

    def _least_of(self, cell: str) -> int:
        if not self.is_text or cells(cell) <= WHOLE:
            return cells(cell)
        return min(cells(cell), max(WHOLE, len(INDENT) + longest_piece(cell)))

    def lines(self, cell: str, width: int, *, is_head: bool) -> list[str]:
        """Return a cell in lines of the column's width; a piece that is wider than that is broken."""
        broken = folded(cell, width, indent=INDENT if self.is_text and not is_head else "")
        return [_justified(line, width, is_left=self.is_text) for line in broken]


def table_text(table: Table, columns: int) -> str:
    """Return a table with no line wider than so many columns, and below it the names of the columns left out."""
    found = _columns(table)
    kept = _kept(found, columns)
    widths = _widths(kept, columns)
    lines = [
        *_row_lines(kept, [column.head for column in kept], widths, is_head=True),
        GAP.join("─" * width for width in widths),
        *itertools.chain.from_iterable(
            _row_lines(kept, row, widths) for row in zip(*(column.cells for column in kept), strict=True)
        ),
    ]
    left_out = [column.head for column in found if column not in kept]
    return "\n".join([*lines, *_left_out_lines(left_out, whole=_needed(found, whole=True), columns=columns)])


def whole_table_text(table: Table, columns: int) -> str:
    """Return a table that leaves nothing out: where its words do not fit beside each other, each cell has a line.

    A row's first cell stands before its others then.
    """
    if _needed(_columns(table)) <= columns:
        return table_text(table, columns)
    lines = [(row[0], head, cell) for row in table.rows for head, cell in zip(table.head[1:], row[1:], strict=True)]
    is_pair = len(table.head) == 2
    return "\n".join(
        wrapped(plain(f"{first}: {cell}" if is_pair else f"{first}, {head}: {cell}"), columns)
        for first, head, cell in lines
    )


def _columns(table: Table) -> list[_Column]:
    rows = [*map(_cleaned, table.rows)]
    return [
        _Column(head=head, cells=tuple(row[index] for row in rows), is_text=index < table.text_columns)
        for index, head in enumerate(_cleaned(table.head))
    ]


def _cleaned(row: Sequence[str]) -> list[str]:
    return [" ".join(plain(cell).split()) for cell in row]


def _kept(found: Sequence[_Column], columns: int) -> list[_Column]:
    """Return the first column and those that there is room for beside it, taken by how much they matter."""
    kept = [found[0]]
    for column in sorted(found[1:], key=lambda column: _unimportance(column.head)):
        if _needed([*kept, column]) <= columns:
            kept.append(column)
    return [column for column in found if column in kept]


def _unimportance(head: str) -> int:
    return PRIORITIES.index(head) if head in PRIORITIES else len(PRIORITIES)


def _needed(columns: Sequence[_Column], *, whole: bool = False) -> int:
    return sum(column.whole if whole else column.least for column in columns) + len(GAP) * (len(columns) - 1)


def _widths(kept: Sequence[_Column], columns: int) -> list[int]:
    """Share what is left of the room among the columns, from the left."""
    widths, left = [], columns - _needed(kept)
    for column in kept:
        more = min(left, column.whole - column.least)
        widths.append(column.least + more)
        left -= more
    return widths


def _row_lines(
    kept: Sequence[_Column], row: Sequence[str], widths: Sequence[int], *, is_head: bool = False
) -> Iterator[str]:
    broken = [column.lines(cell, width, is_head=is_head) for column, cell, width in zip(kept, row, widths, strict=True)]
    for parts in itertools.zip_longest(*broken):
        padded = (part if part is not None else " " * width for part, width in zip(parts, widths, strict=True))
        yield GAP.join(padded).rstrip()


def _left_out_lines(names: Sequence[str], *, whole: int, columns: int) -> list[str]:
    if not names:
        return []
    return [wrapped(f"left out for width: {', '.join(names)}; all columns: COLUMNS={whole} or --json", columns)]


def _justified(line: str, width: int, *, is_left: bool) -> str:
    padding = " " * (width - cells(line))
    return f"{line}{padding}" if is_left else f"{padding}{line}"

"""What a table is before it is markdown, HTML, LaTeX or a terminal's: cells of text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ablation.analysis.answer_records import Difference
from ablation.report.limits import cut
from ablation.report.numbers import NONE, differences_text, unit_of_differences


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of text; the first `text_columns` columns are aligned to the left, the others to the right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1

    @property
    def alignments(self) -> tuple[str, ...]:
        return tuple(":--" if index < self.text_columns else "--:" for index in range(len(self.head)))


def difference_cells(difference: Difference | None, unit: str, *, reach: float = math.inf) -> tuple[str, str]:
    """Return a descriptive difference as (mean with its unit, interval), cut at the largest that there can be."""
    if difference is None:
        return NONE, NONE
    shown = cut(difference.interval, reach, mean=difference.mean) if difference.interval else None
    bounds = (shown.low, shown.high) if shown else ()
    cells = differences_text([difference.mean, *bounds], unit)
    return f"{cells[0]} {unit_of_differences(unit)}".strip(), interval_cell(cells[1:])


def interval_cell(bounds: Sequence[str]) -> str:
    return f"{bounds[0]} to {bounds[1]}" if bounds else NONE

"""What a table is before it is markdown, HTML, LaTeX or a terminal's: cells of text."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median_low

from ablation.analysis.answer_records import Difference
from ablation.report.limits import cut
from ablation.report.numbers import NONE, decimals_for, differences_text, scale_of, unit_of_differences


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of text; the first `text_columns` columns are aligned to the left, the others to the right.

    Of those of text, the last `centred` ones are ticks, which are centred.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int = 1
    centred: int = 0

    @property
    def alignments(self) -> tuple[str, ...]:
        left, right = self.text_columns - self.centred, len(self.head) - self.text_columns
        return (*[":--"] * left, *[":-:"] * self.centred, *["--:"] * right)


def shared_decimals(differences: Iterable[Difference | None], unit: str) -> int:
    """Return the decimals of a column of differences: two digits of the median half-width of their intervals."""
    known = [difference for difference in differences if difference is not None]
    widths = [each.interval.high / 2 - each.interval.low / 2 for each in known if each.interval is not None]
    scale = scale_of(unit)
    return decimals_for(
        scale * median_low(filter(None, widths)) if any(widths) else None, [scale * each.mean for each in known]
    )


def difference_cells(
    difference: Difference | None, unit: str, *, reach: float = math.inf, decimals: int | None = None
) -> tuple[str, str]:
    """Return a descriptive difference as (mean with its unit, interval), cut at the largest that there can be.

    Without `decimals`, which a column has in common, they fit the interval's width.
    """
    if difference is None:
        return NONE, NONE
    shown = cut(difference.interval, reach, mean=difference.mean) if difference.interval else None
    bounds = (shown.low, shown.high) if shown else ()
    cells = differences_text([difference.mean, *bounds], unit, decimals=decimals)
    return f"{cells[0]} {unit_of_differences(unit)}".strip(), interval_cell(cells[1:])


def interval_cell(bounds: Sequence[str]) -> str:
    return f"{bounds[0]} to {bounds[1]}" if bounds else NONE

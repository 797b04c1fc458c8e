"""Writes what a notebook shows of a record: a line or two and a table, as HTML without styles of its own."""

import html
from collections.abc import Iterator, Sequence

from ablation.analysis.analysis_record import Analysis
from ablation.output import plain
from ablation.report import tables
from ablation.report.rows import first_screen
from ablation.report.table import Table


def answers_html(name: str, counts: str, analysis: Analysis | None) -> str:
    """Return a study's headline, its rows as a table and what they rest on; without an analysis the counts of runs."""
    if analysis is None:
        return fragment([f"{name}: {counts}"], None)
    screen = first_screen(analysis)
    return fragment([screen.headline, f"{name}: {counts}", *screen.lines], tables.answer_rows(screen))


def fragment(lines: Sequence[str], table: Table | None) -> str:
    """Return lines, the first of them strong, and a table; all of it text, whatever it holds."""
    first, *rest = map(_text, lines)
    return "".join(
        [
            f"<div><p><strong>{first}</strong></p>",
            *(f"<p>{line}</p>" for line in rest),
            *(_table(table) if table is not None and table.rows else ()),
            "</div>",
        ]
    )


def _table(table: Table) -> Iterator[str]:
    yield f"<table><thead><tr>{''.join(f'<th>{_text(cell)}</th>' for cell in table.head)}</tr></thead><tbody>"
    for row in table.rows:
        yield f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>"
    yield "</tbody></table>"


def _text(text: str) -> str:
    return html.escape(" ".join(plain(text).split()))

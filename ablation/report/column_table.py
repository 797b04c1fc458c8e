"""Writes a table as wide as a column of a paper, whatever the class: names break lines, numbers stay whole."""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ablation.report.latex import latex_text, shortened

_MOST_ROWS = 40
_COLUMN = 24.3
"""The width of a narrow column (7.7 cm at 9 points) in em; names need `_LEAST` of it, and each column `_GAP`."""
_LEAST, _GAP = 7.5, 0.67
_HEAD, _MOST_LINES = 10, 4
"""Characters of a line of a column's head, and its lines."""
_LONGEST = 400
"""Characters of a text that may break."""
_SMALL = 0.88
_WIDTHS = {
    **dict.fromkeys("0123456789", 0.5),
    **dict.fromkeys("+−±≈×=%MWmw", 0.8),
    **dict.fromkeys(" .,:;'|![]()fijlrtI", 0.3),
}
_UPPER, _LOWER, _CODE = 0.75, 0.5, 4.8
"""The widths of letters in em, and of a character that is printed as its code."""
_WHOLE, _PIECE = 6.2, 2.0
"""The width in em up to which a part of a word stays whole, and that of the pieces of a wider one."""
_LONGEST_CELL = 18
"""Characters of a text that is cut."""
_NAMES = r">{\raggedright\arraybackslash\hangindent=1em}X"
_INDENT = r"\hspace*{1em}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """LaTeX, and how wide it is about, in em."""

    latex: str
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row: a name that may break, as wide as it is on one line, and cells."""

    name: Cell
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A table's rows, the head first.

    Their first `texts` cells stand before the names, aligned to the left, the others behind them, to the right.
    """

    rows: tuple[Row, ...]
    texts: int = 0

    @property
    def is_fitting(self) -> bool:
        """Whether it leaves room for names in a narrow column."""
        widths: list[float] = [
            max(each.width for each in cells) for cells in zip(*(row.cells for row in self.rows), strict=True)
        ]
        names = min(_LEAST, max(row.name.width for row in self.rows))
        return sum(widths) + _GAP * len(widths) + names <= _COLUMN


def fitting(layouts: Iterable[Layout]) -> Layout:
    """Return the first layout that leaves room for names, else the last."""
    for layout in layouts:
        if layout.is_fitting:
            break
    return layout


def column_table(layout: Layout, *, caption: str, label: str) -> str:
    """Return a `table` environment of at most 40 rows in ASCII; the caption is LaTeX already."""
    head, *rows = layout.rows
    columns, left, texts = 1 + len(head.cells), len(rows) - _MOST_ROWS, layout.texts
    more = rf"    \multicolumn{{{columns}}}{{@{{}}l@{{}}}}{{and {left} more rows, in tables-wide.tex}} \\"
    lines = [
        r"\begin{table}[htbp]",
        r"  \centering\footnotesize\setlength{\tabcolsep}{3pt}",
        f"  \\caption{{{caption}}}",
        f"  \\label{{{label}}}",
        r"  \smallskip",  # a caption above touches its table in some classes
        rf"  \begin{{tabularx}}{{\columnwidth}}{{@{{}}{'l' * texts}{_NAMES}{'r' * (len(head.cells) - texts)}@{{}}}}",
        r"    \toprule",
        _line(head, texts),
        r"    \midrule",
        *(_line(row, texts) for row in rows[:_MOST_ROWS]),
        *([more] if left > 0 else []),
        r"    \bottomrule",
        r"  \end{tabularx}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _line(row: Row, texts: int) -> str:
    cells = (*row.cells[:texts], row.name, *row.cells[texts:])
    return f"    {' & '.join(each.latex for each in cells)} \\\\"


def name_cell(text: str, *, is_indented: bool = False) -> Cell:
    indent = _INDENT if is_indented else ""
    return Cell(latex=indent + breaking(text), width=cell(text).width + bool(indent))


def breaking(text: str, *, whole: float = _WHOLE) -> str:
    """Return a text whose lines may end within words wider than `whole` em: after signs, and anywhere in long ones."""
    return " ".join(
        r"\allowbreak{}".join(map(latex_text, _pieces(word))) if _width(word) > whole else latex_text(word)
        for word in shortened(text, longest=_LONGEST).split()
    )


def _pieces(word: str) -> Iterator[str]:
    """Yield a word in pieces: after its signs, and a part that is wider than names have room for in short ones."""
    for part in re.split(r"(?<=[,=./_:-])(?=\w)", word):
        piece = ""
        for letter in part if _width(part) > _WHOLE else ():
            if piece and _width(piece + letter) > _PIECE:
                yield piece
                piece = ""
            piece += letter
        yield piece or part


def _width(text: str) -> float:
    return sum(map(_letter_width, text))


def _letter_width(letter: str) -> float:
    if letter in _WIDTHS:
        return _WIDTHS[letter]
    if latex_text(letter).startswith("{[}U"):
        return _CODE
    return _UPPER if letter.isupper() else _LOWER


def head_cell(text: str) -> Cell:
    """Return a column's head, broken into lines as short as its numbers."""
    return stacked(list(map(cell, textwrap.wrap(text, _HEAD, max_lines=_MOST_LINES, placeholder="…") or [""])))


def stacked(lines: Sequence[Cell]) -> Cell:
    """Return a cell of several lines."""
    if len(lines) == 1:
        return lines[0]
    latex = r"\\".join(line.latex for line in lines)
    return Cell(
        latex=rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{latex}\end{{tabular}}", width=max(line.width for line in lines)
    )


def joined(first: Cell, second: Cell) -> Cell:
    """Return two cells with a thin space between them."""
    return Cell(latex=rf"{first.latex}\,{second.latex}", width=first.width + second.width + 0.17)


def text_cell(text: str) -> Cell:
    """Return a cell that is cut where it is long: only names break."""
    return cell(shortened(text, longest=_LONGEST_CELL))


def cell(text: str) -> Cell:
    return Cell(latex=latex_text(text), width=_width(text))


def small(text: str) -> Cell:
    """Return a cell in smaller type, for what stands behind a number."""
    whole = cell(text)
    return Cell(latex=rf"{{\scriptsize {whole.latex}}}", width=_SMALL * whole.width)

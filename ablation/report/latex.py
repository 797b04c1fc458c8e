"""Turns a report's tables into LaTeX that pdflatex compiles, for a paper: booktabs rules, every character escaped."""

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ablation.output import plain
from ablation.report.table import Table

_LONGEST_CELL = 240
_LONGEST_LINE = 26
_NARROWEST_HEAD = 10
_WIDEST, _WIDEST_UPRIGHT = 70, 110
_RIGHT = "--:"
_AT_MOST_THE_LINE = r"\ifdim\width>\linewidth\linewidth\else\width\fi"

_PREAMBLE = r"""% Tables for \input. The preamble needs:
%   \usepackage[T1]{fontenc}
%   \usepackage[utf8]{inputenc}
%   \usepackage{booktabs, array, graphicx, rotating}
%   \usepackage{amssymb}
"""

# Brackets and asterisks would be read as arguments of the line end before them; two hyphens, commas or quotes as one.
_ASCII = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "*": "{*}",
}
_SYMBOLS = {
    "−": "$-$",
    "–": "--",
    "—": "---",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "↔": r"$\leftrightarrow$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "·": r"$\cdot$",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "√": r"$\surd$",
    "°": r"$^{\circ}$",
    "¹": "$^{1}$",
    "²": "$^{2}$",
    "³": "$^{3}$",
    "…": r"\ldots{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
    "„": r"\quotedblbase{}",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "«": r"\guillemotleft{}",
    "»": r"\guillemotright{}",
    "✓": r"$\checkmark$",
    "•": r"\textbullet{}",
    "§": r"\S{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
    "µ": r"$\mu$",
    "μ": r"$\mu$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "Δ": r"$\Delta$",
    "ε": r"$\varepsilon$",
    "η": r"$\eta$",
    "θ": r"$\theta$",
    "λ": r"$\lambda$",
    "π": r"$\pi$",
    "ρ": r"$\rho$",
    "σ": r"$\sigma$",
    "Σ": r"$\Sigma$",
    "τ": r"$\tau$",
    "φ": r"$\varphi$",
    "χ": r"$\chi$",
    "ω": r"$\omega$",
}
_ACCENTS = {
    "\u0300": r"\`",
    "\u0301": r"\'",
    "\u0302": r"\^",
    "\u0303": r"\~",
    "\u0304": r"\=",
    "\u0306": r"\u",
    "\u0307": r"\.",
    "\u0308": r"\"",
    "\u030a": r"\r",
    "\u030b": r"\H",
    "\u030c": r"\v",
    "\u0323": r"\d",
    "\u0327": r"\c",
    "\u0328": r"\k",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """A column's head in LaTeX, its type in tabular's words, and its width in characters."""

    head: str
    type: str
    width: int


def latex_table(table: Table, *, caption: str, label: str) -> str:
    r"""Return a `table` environment in ASCII, with texts aligned like the report's.

    Long texts get columns that break lines. What is wider than the line is shrunk to it, and what is far wider stands
    sideways on a page of its own (`sidewaystable`). A cell above 240 characters is cut, a character that LaTeX has no
    sign for is written as `[U+4E2D]`, and of the label the characters that \label doesn't take become hyphens.
    """
    columns = [
        _column(name, cells, is_text=alignment != _RIGHT)
        for name, alignment, cells in zip(table.head, table.alignments, _transposed(table), strict=True)
    ]
    width = sum(column.width for column in columns)
    environment = "sidewaystable" if width > _WIDEST_UPRIGHT else "table"
    is_shrunk = width > _WIDEST
    lines = [
        f"\\begin{{{environment}}}{'[htbp]' if environment == 'table' else ''}",
        r"  \centering",
        f"  \\caption{{{latex_text(caption)}}}",
        f"  \\label{{{latex_label(label)}}}",
        *([rf"  \resizebox{{{_AT_MOST_THE_LINE}}}{{!}}{{%"] if is_shrunk else []),
        f"  \\begin{{tabular}}{{{''.join(column.type for column in columns)}}}",
        r"    \toprule",
        _row(column.head for column in columns),
        r"    \midrule",
        *(_row(map(_cell, row)) for row in table.rows),
        r"    \bottomrule",
        r"  \end{tabular}" + ("}" if is_shrunk else ""),
        f"\\end{{{environment}}}",
    ]
    return "\n".join(lines) + "\n"


def latex_document(tables: Iterable[str]) -> str:
    """Return the text of a file that holds tables of `latex_table` and says which packages they need."""
    return "\n".join([_PREAMBLE, *tables])


def latex_label(text: str) -> str:
    r"""Return text with hyphens for the characters that \label doesn't take."""
    return re.sub("[^A-Za-z0-9:.-]+", "-", text)


def latex_text(text: str) -> str:
    """Return text on one line as LaTeX in ASCII that prints it, outside of mathematics."""
    line = unicodedata.normalize("NFC", " ".join(plain(text).split()))
    latex = "".join(map(_latex_character, line))
    return re.sub(r"([-,'])(?=\1)", r"\1{}", latex) if re.search(r"[-,']{2}", line) else latex


def _latex_character(character: str) -> str:
    if character in _ASCII:
        return _ASCII[character]
    if character.isascii():
        return character
    return _SYMBOLS.get(character) or _accented(character) or f"{{[}}U+{ord(character):04X}]"


def _accented(character: str) -> str | None:
    letter, *marks = list(unicodedata.normalize("NFD", character))
    if len(marks) != 1 or marks[0] not in _ACCENTS or not (letter.isascii() and letter.isalpha()):
        return None
    return f"{_ACCENTS[marks[0]]}{{{letter}}}"


def _transposed(table: Table) -> list[list[str]]:
    """Return the cells of each column below its head, shortened."""
    return [[shortened(row[index]) for row in table.rows] for index in range(len(table.head))]


def shortened(text: str, *, longest: int = _LONGEST_CELL) -> str:
    """Return text on one line, cut where it is longer than that."""
    line = " ".join(plain(text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _column(name: str, cells: Iterable[str], *, is_text: bool) -> _Column:
    """Lay out a column; its width is in the font's own units, so that a shrunk table keeps its shape."""
    head = shortened(name)
    longest = max(map(len, cells), default=0)
    if not is_text:
        lines = textwrap.wrap(head, max(longest, _NARROWEST_HEAD), break_long_words=False) or [""]
        return _Column(head=_stacked(lines), type="r", width=max(longest, *map(len, lines)))
    width = max(longest, len(head))
    if width <= _LONGEST_LINE:
        return _Column(head=_cell(head), type="l", width=width)
    breaking = rf">{{\raggedright\arraybackslash}}p{{{_LONGEST_LINE // 2}em}}"
    return _Column(head=_cell(head), type=breaking, width=_LONGEST_LINE)


def _stacked(lines: Sequence[str]) -> str:
    latex = r"\\".join(map(latex_text, lines))
    return rf"\shortstack[r]{{{latex}}}" if len(lines) > 1 else latex


def _row(cells: Iterable[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


def _cell(cell: str) -> str:
    """Return a cell's LaTeX, a long one with the places in names where a line may end: `depth=2,` and `width=3`."""
    line = shortened(cell)
    latex = latex_text(line)
    return re.sub(r"(?<=[,=./_])(?=[A-Za-z])", r"\\allowbreak{}", latex) if len(line) > _LONGEST_LINE else latex

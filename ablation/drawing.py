"""Draws in the one style that all figures share: colours, axes, texts, files whose bytes depend on content alone."""

import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.style import context
from numpy.typing import ArrayLike

# Okabe and Ito's colours, told apart with colour-blindness and, by their lightness, in print.
BLUE, SKY, VERMILLION, GREEN = "#0072B2", "#56B4E9", "#D55E00", "#009E73"
ORANGE, PURPLE = "#E69F00", "#CC79A7"
DARK, GREY, PALE = "#222222", "#6b6b6b", "#c9c9c9"
DPI = 130
_LABELLED_CLASSES = 12
_LONGEST_TITLE = 70
_LONGEST_NAME = 34
_MOST_LINES = 3
# Texts stay texts in SVG and PDF: searched, read aloud, and in PDF as fonts that publishers take (type 42, not 3).
# DejaVu Sans comes with matplotlib; Verdana is as wide, where a browser lacks it.
_TEXTS: Mapping[Any, Any] = {  # the keys are literals to matplotlib
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
}
_METADATA: Mapping[str, Mapping[str, Any]] = {
    ".svg": {"Date": None, "Creator": None},
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_WIDE, _NARROW = frozenset("MWmw@%—…"), frozenset("iljI|.,:;'! ")


@contextmanager
def style() -> Iterator[None]:
    """Build and save figures with matplotlib's own defaults, whatever the user's matplotlibrc says."""
    with context(["default", {"axes.unicode_minus": True, **_TEXTS}]):
        yield


def quiet(axes: Axes) -> None:
    """Leave of the frame what carries a scale, in grey."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(labelsize=8, color=GREY)


def text_of(name: str, *, longest: int = _LONGEST_NAME) -> str:
    """Return a user's text on one line, no wider than `longest` average letters, to be drawn as it is: both its ends.

    Without what no font draws (control characters, changes of direction, which XML forbids or matplotlib can't lay
    out), and with dollars that matplotlib won't read as mathematics.
    """
    # Only the beginning and the end can be shown, and names may be long.
    ends = name if len(name) <= 40 * longest else name[: 20 * longest] + name[-20 * longest :]
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in ends).split())
    if line_width(line) > longest:
        half = (longest - 1.6) / 2  # variants differ at the ends of their names
        line = f"{_beginning(line, half)}…{_beginning(line[::-1], half)[::-1]}"
    return line.replace("$", r"\$")


def line_width(line: str) -> float:
    """Return a line's width in average small letters, each about 0.6 of the font's size."""
    return sum(map(_letter_width, line))


def _letter_width(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 2.0
    if letter in _WIDE:
        return 1.6
    if letter in _NARROW:
        return 0.6
    return 1.2 if letter.isupper() else 1.0


def _beginning(line: str, longest: float) -> str:
    width = 0.0
    for position, letter in enumerate(line):
        width += _letter_width(letter)
        if width > longest:
            return line[:position]
    return line


def wrapped(variant: str, *, longest: int = _LONGEST_NAME) -> str:
    """Return a variant's name on the one to three lines that it needs above a panel, broken after commas."""
    lines = [""]
    for part in variant.replace(",", ",\n").split("\n"):
        if lines[-1] and line_width(lines[-1] + part) > longest - 2:
            lines.append("")
        lines[-1] += part
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES - 1 :] = [f"{_beginning(lines[_MOST_LINES - 1], longest - 2)}…"]
    return "\n".join(text_of(line, longest=longest) for line in lines)


def draw_matrix(axes: Axes, shares: ArrayLike) -> None:
    """Draw a confusion matrix given in percent of each true class [true, answered]."""
    axes.imshow(np.asarray(shares, dtype=float), cmap="Blues", vmin=0, vmax=100, interpolation="nearest")


def number_matrix(axes: Axes, shares: ArrayLike, *, size: float = 6.5) -> None:
    """Write its number into each cell of a confusion matrix in percent, unless there are too many."""
    values = np.asarray(shares, dtype=float)
    if len(values) > _LABELLED_CLASSES:
        return
    for row, column in np.ndindex(values.shape):
        share = values[row, column]
        if share > 0:
            colour = "white" if share > 55 else "#333333"
            text = f"{share:.0f}" if share > 0.5 else "·"
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def label_classes(axes: Axes, classes: Sequence[str], *, is_left: bool = True, is_lowest: bool = True) -> None:
    """Name the classes at the left of a matrix and below it, or number them where they are many."""
    axes.tick_params(labelsize=7, length=0)
    names = [text_of(name, longest=12) for name in classes]
    if len(classes) > _LABELLED_CLASSES:
        names = [str(index) if index % -(-len(classes) // 10) == 0 else "" for index in range(len(classes))]
    shown = [index for index, name in enumerate(names) if name]
    labels = [names[index] for index in shown]
    axes.set_xticks(shown if is_lowest else [], labels if is_lowest else [], rotation=90)
    axes.set_yticks(shown if is_left else [], labels if is_left else [])


def percent_of_rows(counts: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return a confusion matrix's counts in percent of each true class; a class without images stays 0."""
    values = np.asarray(counts, dtype=np.float64)
    shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (
        100 * values / np.maximum(values.sum(1, keepdims=True), 1)
    )
    return shares


def write_confusion(path: Path, counts: ArrayLike, classes: Sequence[str], *, title: str) -> None:
    """Write one run's confusion matrix as a PNG file."""
    with style():
        figure = Figure(figsize=(4.6, 4.6))  # its margins fixed: a layout that is worked out draws everything twice
        axes = figure.add_axes((0.22, 0.2, 0.76, 0.68))
        shares = percent_of_rows(counts)
        draw_matrix(axes, shares)
        label_classes(axes, classes)
        number_matrix(axes, shares)
        figure.text(0.02, 0.9, f"{text_of(title, longest=_LONGEST_TITLE)}\n% of each true class", fontsize=9)
        axes.set_xlabel("answer", fontsize=9)
        axes.set_ylabel("true class", fontsize=9)
        save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, SVG or PDF, by the file's ending, without date and software version."""
    FigureCanvasAgg(figure)
    # The salt makes the names inside an SVG file the same at every writing, and different from another figure's.
    with matplotlib.rc_context({**_TEXTS, "svg.hashsalt": path.stem}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(path, dpi=DPI, metadata=dict(_METADATA[path.suffix]), facecolor="white")

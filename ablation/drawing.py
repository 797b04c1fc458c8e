"""Draws in the one style that all figures share: colours, axes, texts, files whose bytes depend on content alone."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

# Okabe and Ito's colours, told apart with colour-blindness and, by their lightness, in print.
BLUE, SKY, VERMILLION, GREEN = "#0072B2", "#56B4E9", "#D55E00", "#009E73"
GREY, PALE = "#6b6b6b", "#c9c9c9"
DPI = 130
_LABELLED_CLASSES = 12
_LONGEST_NAME = 34


def quiet(axes: Axes) -> None:
    """Leave of the frame what carries a scale, in grey."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(labelsize=8, color=GREY)


def text_of(name: str, *, longest: int = _LONGEST_NAME) -> str:
    """Return a user's text on one line, shortened, with dollars that matplotlib won't read as mathematics."""
    line = " ".join(name.split())
    return (line if len(line) <= longest else f"{line[: longest - 1]}…").replace("$", r"\$")


def wrapped(variant: str) -> str:
    """Return a variant's name on as many lines as it needs to stand above a panel, broken after commas."""
    lines = [""]
    for part in variant.replace(",", ",\n").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part) > _LONGEST_NAME - 2:
            lines.append("")
        lines[-1] += part
    return "\n".join(map(text_of, lines))


def draw_matrix(axes: Axes, shares: ArrayLike, classes: Sequence[str]) -> None:
    """Draw a confusion matrix given in percent of each true class [true, answered], with its numbers where few."""
    values = np.asarray(shares, dtype=float)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    if not label_classes(axes, classes):
        return
    for row, column in np.ndindex(values.shape):
        share = values[row, column]
        if share > 0:
            colour = "white" if share > 55 else "#333333"
            text = f"{share:.0f}" if share > 0.5 else "·"
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)


def label_classes(axes: Axes, classes: Sequence[str]) -> bool:
    """Name the classes along both sides of a matrix, unless there are too many; return whether it was done."""
    if len(classes) > _LABELLED_CLASSES:
        axes.tick_params(labelsize=7)
        return False
    names = [text_of(name, longest=12) for name in classes]
    axes.set_xticks(range(len(names)), names, fontsize=7, rotation=90)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.tick_params(length=0)
    return True


def percent_of_rows(counts: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return a confusion matrix's counts in percent of each true class; a class without images stays 0."""
    values = np.asarray(counts, dtype=np.float64)
    shares: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (
        100 * values / np.maximum(values.sum(1, keepdims=True), 1)
    )
    return shares


def write_confusion(path: Path, counts: ArrayLike, classes: Sequence[str], *, title: str) -> None:
    """Write one run's confusion matrix as a PNG file."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    draw_matrix(axes, percent_of_rows(counts), classes)
    axes.set_title(f"{title}\n% of each true class", fontsize=9, loc="left")
    axes.set_xlabel("answer", fontsize=9)
    axes.set_ylabel("true class", fontsize=9)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure without date and software version; the file's ending says which format."""
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(path, dpi=DPI, metadata={"Software": None}, facecolor="white")

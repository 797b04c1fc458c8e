"""Draws the report's figures as PNG files: nothing is computed here, and equal inputs give equal bytes."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from ablation.analysis.records import Analysis, Answer, ConfusionMatrix, VariantCurves, Verdict
from ablation.report.numbers import level_percent, scale_of, unit_of_differences
from ablation.report.prose import change_text
from ablation.report.tables import curve_names

# Okabe and Ito's colours, told apart with colour-blindness and, by their lightness, in print.
BLUE, SKY, VERMILLION, GREEN = "#0072B2", "#56B4E9", "#D55E00", "#009E73"
GREY, PALE = "#6b6b6b", "#c9c9c9"
_VERDICT_COLOURS = {
    Verdict.HELPS: BLUE,
    Verdict.BETTER_THAN_SUM: BLUE,
    Verdict.HURTS: VERMILLION,
    Verdict.WORSE_THAN_SUM: VERMILLION,
    Verdict.NO_MEANINGFUL_DIFFERENCE: GREEN,
}
Item = TypeVar("Item")

_COLUMNS = 4
_PANELS = 24
_ROWS = 40
_LABELLED_CLASSES = 12
_LONGEST_NAME = 34


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure that was written, its path relative to the report, and what it shows in words."""

    path: str
    title: str
    text: str


def draw_forest(analysis: Analysis, folder: Path) -> tuple[Picture, ...]:
    """Draw each comparison's seeds, mean and interval over its ROPE, one panel per metric."""
    pictures = []
    for page, answers in enumerate(_pages(analysis.answers, _ROWS)):
        metrics = list(dict.fromkeys(answer.metric for answer in answers))
        groups = [[answer for answer in answers if answer.metric == metric] for metric in metrics]
        heights = [len(group) + 0.6 for group in groups]
        figure = Figure(figsize=(9.0, 0.62 * sum(heights) + 0.55 * len(groups) + 0.3), layout="constrained")
        panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)
        for axes, group in zip(panels[:, 0], groups, strict=True):
            _draw_comparisons(axes, group)
        level = level_percent(answers[0].level)
        text = (
            f"Every seed's difference (dots), their mean and {level} interval, and the ROPE (grey band), "
            f"by comparison; {', '.join(metric.label for metric in metrics)}."
        )
        pictures.append(_write(figure, folder, _page_name("forest", page), title="forest plot", text=text))
    return tuple(pictures)


def draw_curves(analysis: Analysis, folder: Path) -> tuple[Picture, ...]:
    """Draw every seed's curve with the median, a panel per variant, a figure per quantity."""
    pictures = []
    shown = [curves for curves in analysis.curves if curves.seeds]
    for name, title in curve_names(analysis):
        for page, variants in enumerate(_pages(shown, _PANELS)):
            figure, panels = _grid(len(variants), height=2.3, is_shared=True)
            for axes, curves in zip(panels, variants, strict=True):
                _draw_curves(axes, curves, name, variants)
            scale = " (%)" if name.endswith("accuracy") else " (nats)"
            shown_as = f"{title} by epoch"
            figure.suptitle(f"{_sentence_case(title)}{scale} by epoch", fontsize=11, x=0.01, ha="left")
            figure.supxlabel("epoch", fontsize=9)
            text = (
                f"{_sentence_case(title)} by epoch: every seed (thin), the median (thick), "
                "and the other variants' medians (grey)."
                + (" Values are running means over each epoch's batches." if name.startswith("train") else "")
            )
            pictures.append(_write(figure, folder, _page_name(name.replace("_", "-"), page), title=shown_as, text=text))
    return tuple(pictures)


def draw_confusion(analysis: Analysis, folder: Path) -> tuple[Picture, ...]:
    """Draw the confusion matrices, each row in percent of its true class, a figure per split."""
    pictures = []
    for split in dict.fromkeys(matrix.split for matrix in analysis.confusion):
        matrices = [matrix for matrix in analysis.confusion if matrix.split == split]
        for page, shown in enumerate(_pages(matrices, _PANELS)):
            figure, panels = _grid(len(shown), height=3.1, is_shared=False)
            for axes, matrix in zip(panels, shown, strict=True):
                _draw_matrix(axes, matrix, analysis.data.classes)
            figure.suptitle(f"Confusion on the {split} split, % of each true class", fontsize=11, x=0.01, ha="left")
            figure.supxlabel("answer", fontsize=9)
            figure.supylabel("true class", fontsize=9)
            shown_as = f"confusion on the {split} split"
            text = f"Confusion on the {split} split in percent of each true class, summed over each variant's seeds."
            pictures.append(_write(figure, folder, _page_name(f"confusion-{split}", page), title=shown_as, text=text))
    return tuple(pictures)


def _pages(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _page_name(name: str, page: int) -> str:
    return f"{name}-{page + 1}" if page else name


def _sentence_case(text: str) -> str:
    return text[0].upper() + text[1:]


def _write(figure: Figure, folder: Path, name: str, *, title: str, text: str) -> Picture:
    """Write a figure without the date and the software's version, so that its bytes depend on its content alone."""
    FigureCanvasAgg(figure)
    path = folder / "figures" / f"{name}.png"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(path, dpi=130, metadata={"Software": None}, facecolor="white")
    return Picture(path=f"figures/{name}.png", title=title, text=text)


def _grid(count: int, *, height: float, is_shared: bool) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels in at most four columns, those left over removed."""
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(2.7 * columns, 5.0) + 0.4, height * rows + 0.6), layout="constrained")
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False, sharex=is_shared, sharey=is_shared).flat)
    for axes in panels[count:]:
        axes.remove()
    if is_shared:
        for axes in panels[max(0, count - columns) : count]:
            axes.tick_params(labelbottom=True)
    return figure, panels[:count]


def _quiet(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GREY)
    axes.tick_params(labelsize=8, color=GREY)


def _text(name: str, *, longest: int = _LONGEST_NAME) -> str:
    """Return a user's text on one line, shortened, with dollars that matplotlib won't read as mathematics."""
    line = " ".join(name.split())
    return (line if len(line) <= longest else f"{line[: longest - 1]}…").replace("$", r"\$")


def _wrapped(variant: str) -> str:
    """Return a variant's name on as many lines as it needs to stand above a panel, broken after commas."""
    lines = [""]
    for part in variant.replace(",", ",\n").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part) > _LONGEST_NAME - 2:
            lines.append("")
        lines[-1] += part
    return "\n".join(map(_text, lines))


def _draw_comparisons(axes: Axes, answers: Sequence[Answer]) -> None:
    _quiet(axes)
    metric = answers[0].metric
    for row, answer in enumerate(answers):
        _draw_comparison(axes, answer, row)
    axes.axvline(0, color=GREY, linewidth=0.8, zorder=1)
    axes.set_ylim(len(answers) - 0.4, -0.6)
    axes.set_yticks(range(len(answers)), [_comparison_label(answer) for answer in answers], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    side = "right" if metric.direction == "maximize" else "left"
    unit = unit_of_differences(metric.unit)
    axes.set_xlabel(f"difference in {metric.label} ({unit}); better to the {side}", fontsize=8)


def _comparison_label(answer: Answer) -> str:
    return "\n× ".join(_text(change_text(change)) for change in answer.changes)


def _draw_comparison(axes: Axes, answer: Answer, row: int) -> None:
    scale, effect = scale_of(answer.metric.unit), answer.effect
    if answer.rope is not None:
        width = 2 * scale * answer.rope
        band = Rectangle((-width / 2, row - 0.5), width, 1, facecolor="#ebebeb", edgecolor="none", zorder=0)
        axes.add_patch(band)
        axes.update_datalim([(-width / 2, row), (width / 2, row)])
    colour = _VERDICT_COLOURS.get(answer.verdict, GREY)
    if effect is not None and effect.interval is not None:
        bounds = [scale * effect.interval.low, scale * effect.interval.high]
        axes.plot(bounds, [row, row], color=colour, linewidth=2.2, solid_capstyle="butt", zorder=2)
    if effect is not None:
        axes.plot([scale * effect.mean], [row], marker="D", markersize=6, color=colour, zorder=3)
    points = [scale * difference.difference for difference in answer.differences]
    axes.plot(
        points, [row + 0.24] * len(points), "o", markersize=4, color=colour, alpha=0.55, markeredgewidth=0, zorder=2
    )
    axes.annotate(
        answer.verdict.value.replace(": ", ":\n"),
        xy=(1.01, row),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=8,
        color=colour,
        annotation_clip=False,
    )


def _draw_curves(axes: Axes, curves: VariantCurves, name: str, others: Sequence[VariantCurves]) -> None:
    _quiet(axes)
    scale = 100.0 if name.endswith("accuracy") else 1.0
    draw = _plotter(axes, scale)
    for other in others:
        if other is not curves:
            draw(other.median.get(name, ()), PALE, 1.0, 1)
    for seed in curves.seeds:
        draw(seed.curves.get(name, ()), VERMILLION if seed.is_diverged else SKY, 0.9, 2)
    draw(curves.median.get(name, ()), BLUE, 1.7, 3)
    diverged = sum(seed.is_diverged for seed in curves.seeds)
    title = _wrapped(curves.variant) + (f"\n{diverged} diverged" if diverged else "")
    axes.set_title(title, fontsize=8, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    axes.grid(visible=True, axis="y", color="#efefef", linewidth=0.8, zorder=0)


def _plotter(axes: Axes, scale: float) -> Callable[[Sequence[tuple[int, float]], str, float, int], None]:
    def draw(points: Sequence[tuple[int, float]], colour: str, width: float, order: int) -> None:
        if points:
            epochs, values = zip(*points, strict=True)
            marker = "o" if len(points) == 1 else ""
            axes.plot(epochs, [scale * value for value in values], marker=marker, color=colour, lw=width, zorder=order)

    return draw


def _draw_matrix(axes: Axes, matrix: ConfusionMatrix, classes: Sequence[str]) -> None:
    counts = np.asarray(matrix.counts, dtype=float)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    axes.set_title(f"{_wrapped(matrix.variant)}\n{len(matrix.run_ids)} runs", fontsize=8, loc="left")
    if len(classes) > _LABELLED_CLASSES:
        axes.tick_params(labelsize=7)
        return
    names = [_text(name, longest=12) for name in classes]
    axes.set_xticks(range(len(names)), names, fontsize=7, rotation=90)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.tick_params(length=0)
    for row, column in np.ndindex(shares.shape):
        share = shares[row, column]
        if share > 0:
            colour = "white" if share > 55 else "#333333"
            text = f"{share:.0f}" if share > 0.5 else "·"
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)

"""Draws held-out against training loss, both in evaluation mode, from each run's first epoch to its last."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from matplotlib.axes import Axes

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.descriptive_records import Points, VariantCurves
from ablation.drawing import BLUE, GREY, SKY, VERMILLION, wrapped
from ablation.records import TASKS
from ablation.report.figures.panels import (
    Drawing,
    Margins,
    add_lines,
    alpha_of,
    grid,
    label_sides,
    left_out,
    pages,
    scale_over,
    sentence_case,
    share_scale,
    within,
)
from ablation.report.names import training_function
from ablation.report.numbers import in_brackets

_TRAINING = "train_sample_loss"
_MARGINS = Margins()
Path = list[tuple[float, float]]


def trajectories_drawings(analysis: Analysis) -> Iterator[Drawing]:
    """Yield a panel per variant with runs; x falls from left to right, so that time runs to the right.

    Nothing of a user's own training function: what its losses were measured on is not known.
    """
    if training_function(analysis):
        return
    heldout, unit = f"{analysis.heldout_split}_loss", TASKS[analysis.data.task].loss_unit
    variants = [curves for curves in analysis.curves if any(_path(seed.curves, heldout) for seed in curves.seeds)]
    known = [point for curves in variants for point in _known_points(curves, heldout)]
    if not known:
        return
    falling = scale_over([x for x, _ in known], unit=unit)
    falling = replace(falling, ends=falling.ends[::-1])
    ends = scale_over([y for _, y in known], unit=unit)
    matched = {found.variant: found.train_loss for found in analysis.matched_losses}
    drawn = {curves.variant: curves for curves in variants}
    beside = {row.name: drawn.get(analysis.reference(row).name) for row in analysis.variants}
    text = _text(analysis, is_matched=bool(matched)) + left_out(len(variants), "variants")
    for name, shown in pages("trajectories", variants):
        heading = f"{analysis.heldout_split} loss against training loss, epoch by epoch"
        titles = [wrapped(curves.variant, longest=30) for curves in shown]
        page = grid(titles, heading=sentence_case(heading), height=1.7, margins=_MARGINS)
        share_scale(page, x=falling, y=ends)
        for axes, curves in zip(page.panels, shown, strict=True):
            _draw_trajectories(axes, curves, beside[curves.variant], heldout)
            if curves.variant in matched:
                axes.axvline(matched[curves.variant], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        x = f"loss on the fixed training sample{in_brackets(unit)}, falling to the right"
        label_sides(page, x=x, y=f"{analysis.heldout_split} loss{in_brackets(unit)}")
        yield Drawing(name=name, title="training against held-out loss", text=text, figure=page.figure)


def _text(analysis: Analysis, *, is_matched: bool) -> str:
    matched = " The dashed line marks the training loss at which a variant is compared with the baseline."
    return (
        f"Loss on the {analysis.heldout_split} split against loss on the fixed training sample, both in evaluation "
        "mode: every seed (thin), the median (thick), the baseline's median (grey). The x axis is inverted, so that "
        "time runs to the right; a dot marks the last epoch." + (matched if is_matched else "")
    )


def _path(curves: Mapping[str, Points], heldout: str) -> Path:
    """Return (training loss, held-out loss) of the epochs that have both."""
    training = dict(curves.get(_TRAINING, ()))
    return [(training[epoch], loss) for epoch, loss in curves.get(heldout, ()) if epoch in training]


def _known_points(curves: VariantCurves, heldout: str) -> Iterator[tuple[float, float]]:
    for seed in curves.seeds:
        if not seed.is_diverged:
            yield from _path(seed.curves, heldout)


def _draw_trajectories(axes: Axes, curves: VariantCurves, baseline: VariantCurves | None, heldout: str) -> None:
    if baseline is not None and baseline is not curves:
        _draw_paths(axes, [_path(baseline.median, heldout)], GREY, width=1.3, alpha=0.7, order=1.5)
    for is_diverged, colour in ((False, SKY), (True, VERMILLION)):
        paths = [_path(seed.curves, heldout) for seed in curves.seeds if seed.is_diverged is is_diverged]
        _draw_paths(axes, paths, colour, width=0.8, alpha=alpha_of(len(paths)), order=2)
    _draw_paths(axes, [_path(curves.median, heldout)], BLUE, width=1.8, alpha=1, order=3)


def _draw_paths(axes: Axes, paths: Sequence[Path], colour: str, *, width: float, alpha: float, order: float) -> None:
    drawn = [within([(_bounded(x), y) for x, y in path]) for path in paths if path]
    add_lines(
        axes, [path for path in drawn if len(path) > 1], colors=colour, linewidths=width, alpha=alpha, order=order
    )
    if drawn:
        x, y = zip(*(path[-1] for path in drawn), strict=True)
        axes.plot(x, y, "o", markersize=1.5 + 1.5 * width, color=colour, alpha=alpha, markeredgewidth=0, zorder=order)


def _bounded(value: float) -> float:
    return min(max(value, -1e12), 1e12)

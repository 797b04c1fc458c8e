"""Lays a pair of crossed factors out: the one with more levels along x, a cell per combination of levels."""

from collections.abc import Mapping
from dataclasses import dataclass

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.descriptive_records import FactorCell, FactorPair
from ablation.drawing import text_of
from ablation.study import level_names
from ablation.study.level_names import level_text


@dataclass(frozen=True, slots=True, kw_only=True)
class PairPlot:
    """A pair of factors as it is drawn: `along` is the one with more levels; cells by (its level, the other's).

    `baseline` are the baseline's levels of both.
    """

    along: str
    other: str
    steps: tuple[str, ...]
    levels: tuple[str, ...]
    cells: Mapping[tuple[str, str], FactorCell]
    baseline: tuple[str, str]

    @property
    def title(self) -> str:
        return f"{short_name(self.along)} × {short_name(self.other)}"

    @property
    def is_smallest(self) -> bool:
        """Whether both factors have two levels: two lines then say more than four cells."""
        return len(self.steps) == len(self.levels) == 2


def pair_plots(analysis: Analysis, *, are_smallest: bool) -> list[PairPlot]:
    """Return the pairs of factors that have a mean, those of two levels each or the others."""
    plots = [_plot(pair, analysis) for pair in analysis.factor_pairs if any(cell.values for cell in pair.cells)]
    return [plot for plot in plots if plot.is_smallest is are_smallest]


def short_name(factor: str) -> str:
    return text_of(level_names.short_name(factor))


def _plot(pair: FactorPair, analysis: Analysis) -> PairPlot:
    counts = {factor: len(_levels(factor, pair, analysis)) for factor in (pair.first, pair.second)}
    along, other = sorted(counts, key=lambda factor: -counts[factor])
    baseline = next(row.levels for row in analysis.variants if row.is_baseline)
    return PairPlot(
        along=along,
        other=other,
        steps=_levels(along, pair, analysis),
        levels=_levels(other, pair, analysis),
        cells={(level_text(cell.levels[along]), level_text(cell.levels[other])): cell for cell in pair.cells},
        baseline=(level_text(baseline.get(along)), level_text(baseline.get(other))),
    )


def _levels(factor: str, pair: FactorPair, analysis: Analysis) -> tuple[str, ...]:
    """Return a factor's levels that the pair has, numbers ascending and others in the study's order."""
    found = [cell.levels[factor] for cell in pair.cells]
    if all(isinstance(level, int | float) and not isinstance(level, bool) for level in found):
        return tuple(dict.fromkeys(level_text(level) for level in sorted(found)))
    texts = dict.fromkeys(map(level_text, found))
    ordered = [text for text in map(level_text, analysis.factors.get(factor, ())) if text in texts]
    return tuple(dict.fromkeys([*ordered, *texts]))

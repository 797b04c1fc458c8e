"""Lays the first screen's rows out as HTML with inline SVG: each a fold, its words text, its drawing labelled."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ablation.analysis.analysis_record import Analysis
from ablation.output import plain
from ablation.report.figures.panels import scale_for
from ablation.report.html import page_template
from ablation.report.numbers import signed
from ablation.report.prose import headline
from ablation.report.prose.extension import extension_text
from ablation.report.rows import Axis, Dot, FirstScreen, MetricRows, Row

Address = Callable[[str], str | None]
"""Returns the address of a run's page by the run's ID, None where no server is known to show it."""

_MOST_OPEN, _FEWEST_OPEN = 24, 3
"""Rows of all metrics together that are not folded, and those of each metric at least."""
_MOST_LINKED = 48
"""Runs that a row links to."""
_AXIS_LETTERS = 26
"""How many letters an axis has room for where it is narrowest."""


def no_address(_run_id: str) -> str | None:
    """Know no page of any run."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A run by its variant, or by its ID where that is not known, and the address of its page."""

    name: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _SeedRuns:
    """The runs behind what `title` says of a seed."""

    title: str
    runs: tuple[_Run, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """What is known of runs by their IDs: the address of each one's page, and (its variant, its seed)."""

    page: Address
    known: Mapping[str, tuple[str, int]]

    @classmethod
    def of(cls, analysis: Analysis, address: Address) -> "_Runs":
        ended = {each.run_id: (row.variant, each.seed) for row in analysis.curves for each in row.seeds if each.run_id}
        done = {
            run_id: (row.name, each.seed) for row in analysis.variants for each in row.values for run_id in each.run_ids
        }
        return cls(page=address, known=ended | done)

    def link(self, run_id: str) -> _Run | None:
        """Return a run with its page; None of one without."""
        address = self.page(run_id) or ""
        if not address.startswith(("http://", "https://")):
            return None
        return _Run(name=self.known[run_id][0] if run_id in self.known else run_id, address=address)

    def links(self, run_ids: Iterable[str]) -> tuple[_Run, ...]:
        return tuple(filter(None, map(self.link, run_ids)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _DrawnDot:
    x: str
    title: str
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """An interval; where it goes on beyond the axis, it is cut there."""

    low: str
    high: str
    is_cut_below: bool
    is_cut_above: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawing:
    """What is drawn of a row, x in percent of the width; `label` says it in words."""

    mean: str
    bar: _Bar | None
    dots: tuple[_DrawnDot, ...]
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _PageRow:
    row: Row
    headline: str
    rest: str
    drawing: _Drawing | None
    seeds: tuple[_SeedRuns, ...]
    unlinked: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _PageGroup:
    """The rows of a metric, the first of them open; `band` is (x, width) of what is too small to matter."""

    group: MetricRows
    zero: str
    band: tuple[str, str] | None
    ticks: tuple[tuple[str, str], ...]
    shown: tuple[_PageRow, ...]
    folded: tuple[_PageRow, ...]

    @property
    def counts(self) -> str:
        """Return the verdicts of the folded rows: `3 hurts, 72 undecided`."""
        counted = Counter(each.row.verdict for each in self.folded)
        return ", ".join(f"{count:,} {verdict}" for verdict, count in counted.items())


def rows_html(screen: FirstScreen, analysis: Analysis, *, address: Address) -> Markup:
    """Return headline, lines and rows as HTML, for the page that `html_document` makes."""
    runs = _Runs.of(analysis, address)
    most = max(_FEWEST_OPEN, _MOST_OPEN // max(1, len(screen.groups)))
    groups = [_page_group(group, most, runs) for group in screen.groups]
    lines = [*screen.lines, *filter(None, [extension_text(analysis)])]
    text = page_template("rows.html.jinja").render(screen=screen, lines=lines, groups=groups)
    return Markup(plain(text))  # noqa: S704 -- the template has escaped what it was given


def _page_group(group: MetricRows, most: int, runs: _Runs) -> _PageGroup:
    axis, band = group.axis, group.band
    rows = [_page_row(row, group, runs) for row in group.rows]
    is_drawn = any(row.drawing for row in rows)
    scale = scale_for(axis.low, axis.high, letters=_AXIS_LETTERS)
    # One row more is no longer than a fold that holds it.
    count = len(rows) if len(rows) == most + 1 else most
    return _PageGroup(
        group=group,
        zero=_x(axis, 0.0),
        band=(_x(axis, -band), _percent(axis.share(band) - axis.share(-band))) if band is not None else None,
        ticks=tuple((_x(axis, tick), scale.text(tick)) for tick in scale.ticks if is_drawn),
        shown=tuple(rows[:count]),
        folded=tuple(rows[count:]),
    )


def _page_row(row: Row, group: MetricRows, runs: _Runs) -> _PageRow:
    begin = headline(row.answer)
    seeds, unlinked = _linked(row, group, runs)
    return _PageRow(
        row=row,
        headline=begin,
        rest=row.sentence.removeprefix(begin),
        drawing=_drawing(row, group, runs) if row.mean is not None else None,
        seeds=seeds,
        unlinked=unlinked,
    )


def _linked(row: Row, group: MetricRows, runs: _Runs) -> tuple[tuple[_SeedRuns, ...], int]:
    """Return the runs behind a row that have a page, by seed, and how many more have one."""
    by_seed = [(_dot_title(dot, group), dot.run_ids) for dot in row.dots]
    told = [(title, runs.links(run_ids)) for title, run_ids in (*_without_difference(row, runs), *by_seed)]
    found: list[_SeedRuns] = []
    left = _MOST_LINKED
    for title, links in told:
        if links and len(links) <= left:
            found.append(_SeedRuns(title=title, runs=links))
            left -= len(links)
    return tuple(found), sum(len(links) for _, links in told) - sum(len(each.runs) for each in found)


def _without_difference(row: Row, runs: _Runs) -> Iterator[tuple[str, list[str]]]:
    """Yield what is said of the seeds that a row has no difference for, and the IDs of their runs."""
    for run in row.answer.missing:
        yield f"seed {run.seed}, {run.reason}", [run.run_id] if run.run_id is not None else []
    variants = row.answer.instability.variants if row.answer.instability is not None else ()
    unstable = {variant.variant for variant in variants if variant.unstable}
    found = [(seed, run_id) for run_id, (variant, seed) in runs.known.items() if variant in unstable]
    for seed in dict.fromkeys(seed for seed, _ in sorted(found)):
        yield f"seed {seed}", [run_id for each, run_id in found if each == seed]


def _drawing(row: Row, group: MetricRows, runs: _Runs) -> _Drawing:
    axis = group.axis
    assert row.mean is not None
    bar = None
    if row.low is not None and row.high is not None:
        bar = _Bar(
            low=_x(axis, row.low),
            high=_x(axis, row.high),
            is_cut_below=row.low < axis.low,
            is_cut_above=row.high > axis.high,
        )
    return _Drawing(
        mean=_x(axis, row.mean), bar=bar, dots=tuple(_dots(row.dots, group, runs)), label=_label(row, group)
    )


def _dots(dots: Sequence[Dot], group: MetricRows, runs: _Runs) -> Iterator[_DrawnDot]:
    for dot in dots:
        links = runs.links(dot.run_ids[-1:])
        address = links[0].address if links else None
        yield _DrawnDot(x=_x(group.axis, dot.value), title=_dot_title(dot, group), address=address)


def _dot_title(dot: Dot, group: MetricRows) -> str:
    return f"seed {dot.seed}: {_amount(dot.value, group)}"


def _label(row: Row, group: MetricRows) -> str:
    """Return the drawing in words: `interval from +3.2 to +8.2; 5 seeds from +4.1 to +7.0 points`."""
    interval = f"interval from {row.bounds}; " if row.bounds else ""
    values = sorted(dot.value for dot in row.dots)
    ends = f"{signed(values[0], group.decimals)} to {_amount(values[-1], group)}"
    return f"{interval}{len(values)} seed{'s' if len(values) != 1 else ''} from {ends}"


def _amount(value: float, group: MetricRows) -> str:
    return f"{signed(value, group.decimals)} {group.unit}".rstrip()


def _x(axis: Axis, value: float) -> str:
    return _percent(axis.share(value))


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"

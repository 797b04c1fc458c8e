"""Draws the rows of the first screen with characters, no wider than a terminal: columns are left out before letters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from ablation.output import cells, clipped, folded, plain, width
from ablation.records import SIGNS
from ablation.report.numbers import brief
from ablation.report.rows import Axis, FirstScreen, MetricRows, Row

_BAND, _ZERO, _BAR, _DOT, _MEAN, _GOES_ON = "░", "│", "━", "•", "◆", ("◂", "▸")
_GAP = "  "
_NARROWEST_CHANGE, _WIDEST_CHANGE = 32, 44
_NARROWEST_DRAWING, _WIDEST_DRAWING = 16, 44
_LAYOUTS: Sequence[tuple[frozenset[str], int]] = (
    (frozenset({"effect", "bounds", "costs", "drawing"}), 24),
    (frozenset({"effect", "bounds", "drawing"}), 24),
    (frozenset({"effect", "drawing"}), 24),
    (frozenset({"effect", "drawing"}), 14),
    (frozenset({"effect"}), 14),
)
"""What may stand beside a change and its verdict, and how wide verdicts may be: whole on one line, all but a few."""
_FEW = 6
_ON_ONE_LINE = (*_LAYOUTS[:3], (frozenset({"effect"}), 24))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """The width of each column of the rows, 0 for one that is left out."""

    change: int
    verdict: int
    drawing: int
    effect: int
    bounds: int
    costs: tuple[int, ...]


def first_screen_text(screen: FirstScreen, columns: int) -> Text:
    """Return the headline, every comparison's row, and what it rests on, in lines of at most so many columns."""
    layout = _layout(screen, columns)
    lines = [*_paragraph(screen.headline, columns, style="bold"), Text()]
    for group in screen.groups:
        lines += _paragraph(_heading(group, is_drawn=layout.drawing > 0), columns, style="underline")
        lines += [line for row in group.rows for line in _row(row, group, layout, columns)]
    if key := _key(screen, layout):
        lines += [Text(), *_paragraph(key, columns, style="dim")]
    lines += [Text(), *_paragraph(" ".join(screen.lines), columns)]
    return Text("\n").join(lines)


def in_terminal(text: Text) -> str:
    """Return text with the styles that standard output shows: none in a file, and no colours where NO_COLOR is set."""
    console = Console(highlight=False, emoji=False, width=width(), soft_wrap=True)
    with console.capture() as capture:
        console.print(text, end="")
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _paragraph(text: str, columns: int, *, style: str = "") -> Iterator[Text]:
    for line in _lines(text, columns):
        yield Text(line, style=style)


def _heading(group: MetricRows, *, is_drawn: bool) -> str:
    better = "higher" if SIGNS[group.metric.direction] > 0 else "lower"
    sign = f"{_BAND} " if is_drawn else ""
    band = f"{sign}±{brief(group.band)}: too small to matter" if group.band is not None else ""
    said = "; ".join(filter(None, (f"{better} is better", band)))
    return f"{', '.join(filter(None, (group.heading, group.unit)))} ({said})"


def _key(screen: FirstScreen, layout: _Layout) -> str:
    """Return what the signs mean that are shown."""
    signs = ", ".join(_drawn_signs(screen)) if layout.drawing else ""
    costs = (screen.cost_heading, screen.cost_note) if any(layout.costs) else ()
    return "; ".join(filter(None, (signs, *costs)))


def _drawn_signs(screen: FirstScreen) -> Iterator[str]:
    levels = {group.level for group in screen.groups}
    if any(row.low is not None for row in screen.rows):
        is_one = len(levels) == 1 and "" not in levels
        yield f"{_BAR} {levels.pop()} interval" if is_one else f"{_BAR} interval at its own level"
    if any(row.mean is not None for row in screen.rows):
        yield f"{_MEAN} mean"
    if any(row.dots for row in screen.rows):
        yield f"{_DOT} seeds"
    if any(_is_cut(row, group.axis) for group in screen.groups for row in group.rows):
        yield f"{_GOES_ON[1]} goes on"


def _is_cut(row: Row, axis: Axis) -> bool:
    return any(bound is not None and not axis.holds(bound) for bound in (row.low, row.high))


def _layout(screen: FirstScreen, columns: int) -> _Layout:
    """Return the first layout that fits; where none does, changes and verdicts stand below each other.

    Many rows take a line each, if need be without their drawings, so that all verdicts are seen at once.
    """
    compact = _ON_ONE_LINE if len(screen.rows) > _FEW else ()
    for number, (shown, widest_verdict) in enumerate((*compact, *_LAYOUTS)):
        is_whole = number < len(compact)
        if layout := _fitted(screen, shown, columns, widest_verdict=widest_verdict, is_whole=is_whole):
            return layout
    return _Layout(change=max(1, columns - 2), verdict=0, drawing=0, effect=0, bounds=0, costs=())


def _fitted(
    screen: FirstScreen, shown: frozenset[str], columns: int, *, widest_verdict: int, is_whole: bool
) -> _Layout | None:
    """Return a layout with these columns, None where a change is cut (`is_whole`) or narrower than it can be read."""
    rows = screen.rows
    whole = min(_WIDEST_CHANGE, max(cells(plain(row.change)) for row in rows))
    needed = min(_NARROWEST_CHANGE, max(cells(plain(line)) for row in rows for line in row.lines))
    verdict = max(cells(line) for row in rows for line in _lines(row.verdict, widest_verdict))
    effect = max(cells(row.effect) for row in rows)
    bounds = max(cells(row.bounds) for row in rows) if "bounds" in shown else 0
    costs = tuple(max(cells(row.costs[index]) for row in rows) for index in range(len(screen.costs)))
    kept = costs if "costs" in shown else ()
    left = columns - 2 - len(_GAP) - verdict - sum(len(_GAP) + each for each in (effect, bounds, *kept) if each)
    drawn = len(_GAP) + _NARROWEST_DRAWING if "drawing" in shown else 0
    change = min(whole, left - drawn)
    if change < (whole if is_whole else needed):
        return None
    drawing = min(_WIDEST_DRAWING, left - change - len(_GAP)) if drawn else 0
    return _Layout(change=change, verdict=verdict, drawing=drawing, effect=effect, bounds=bounds, costs=kept)


def _row(row: Row, group: MetricRows, layout: _Layout, columns: int) -> Iterator[Text]:
    """Yield a row's lines: all but the change and the verdict stand on the first."""
    style = f"bold {row.mark.style}".strip()
    lines = [row.change] if cells(plain(row.change)) <= layout.change else row.lines
    change = [part for line in lines for part in _lines(line, layout.change)]
    verdict = _lines(row.verdict, layout.verdict or columns - 2)
    if not layout.verdict:  # too narrow for columns: the verdict stands below
        yield from (Text(f"{row.mark.shape if not number else ' '} {line}") for number, line in enumerate(change))
        yield from (Text(f"  {line}", style=style) for line in verdict)
    else:
        for number in range(max(len(change), len(verdict))):
            line = Text(f"{row.mark.shape if not number else ' '} ", style=style)
            line.append(
                _padded(change[number] if number < len(change) else "", layout.change), style="not bold default"
            )
            line.append(_GAP + _padded(verdict[number] if number < len(verdict) else "", layout.verdict), style=style)
            yield _with_numbers(line, row, group.axis, group.band, layout) if not number else line
    if row.problem:
        yield Text(clipped(f"    {' '.join(plain(row.problem).split())}", columns), style="dim")


def _with_numbers(line: Text, row: Row, axis: Axis, band: float | None, layout: _Layout) -> Text:
    if layout.drawing:
        line.append(_GAP)
        line.append(_drawn(row, axis, band, layout.drawing))
    texts = [(row.effect, layout.effect), (row.bounds, layout.bounds), *zip(row.costs, layout.costs, strict=False)]
    for number, (text, columns) in enumerate(texts):
        if columns:
            line.append(_GAP + " " * (columns - cells(text)) + text, style="bold" if not number else "not bold")
    return line


def _drawn(row: Row, axis: Axis, band: float | None, columns: int) -> Text:
    """Return the interval with its mean and dots over the band, a character a place; bars beyond the axis are cut."""
    places: list[tuple[str, str]] = [(" ", "")] * columns

    def place(value: float) -> int:
        return round(axis.share(value) * (columns - 1))

    def put(first: float, last: float, mark: str, style: str) -> None:
        for index in range(place(first), place(last) + 1):
            places[index] = (mark, style)

    if band is not None:
        put(-band, band, _BAND, "dim not bold")
    put(0.0, 0.0, _ZERO, "dim not bold")
    if row.low is not None and row.high is not None:
        put(row.low, row.high, _BAR, row.mark.style)
    for dot in row.dots:
        put(dot.value, dot.value, _DOT, row.mark.style)
    if row.mean is not None:
        put(row.mean, row.mean, _MEAN, f"bold {row.mark.style}")
    for bound, index, mark in ((row.low, 0, _GOES_ON[0]), (row.high, -1, _GOES_ON[1])):
        if bound is not None and not axis.holds(bound):
            places[index] = (mark, row.mark.style)
    drawn = Text()
    for mark, style in places:
        drawn.append(mark, style=style)
    return drawn


def _lines(text: str, columns: int) -> list[str]:
    return folded(" ".join(plain(text).split()), columns)


def _padded(text: str, columns: int) -> str:
    return text + " " * (columns - cells(text))

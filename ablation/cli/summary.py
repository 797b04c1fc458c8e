"""Lays an analysis or a comparison out for a terminal: the answers first, then tables."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import replace

from rich.console import Console, Group, RenderableType
from rich.text import Text

from ablation.analysis import Analysis, Comparison
from ablation.analysis.answer_records import Difference
from ablation.analysis.comparison import ComparedMetric
from ablation.analysis.pairs import JudgedPair
from ablation.cli.layout import table_text
from ablation.output import plain, plain_json, width, wrapped
from ablation.report import sentences, tables
from ablation.report.characters import first_screen_text, in_terminal
from ablation.report.labels import labelled
from ablation.report.limits import cut, reach_of
from ablation.report.numbers import (
    NONE,
    count_text,
    differences_text,
    given_difference,
    level_percent,
    value_text,
)
from ablation.report.prose.verdicts import VERDICT_WORDS
from ablation.report.replicates import correction_text, in_folds
from ablation.report.rows import first_screen
from ablation.report.table import Table as Cells
from ablation.report.table import difference_cells

_SHOWN_ROWS = 40


def analysis_text(analysis: Analysis) -> str:
    """Return the rows, the same in sentences, the variants and their cost."""
    analysis = labelled(analysis)
    parts: list[RenderableType] = [Text("In words", style="bold")]
    parts += [_sentence(number, *said) for number, said in enumerate(sentences(analysis), start=1)]
    for title, make in (("Variants", tables.variants), ("Cost", tables.costs)):
        cells = make(analysis)
        parts += [Text(), _table(cells, title=title)] if cells.rows else []
    rows = in_folds(in_terminal(first_screen_text(first_screen(analysis), width())), analysis.folds)
    return f"{rows}\n\n{_rendered(Group(*parts))}"


def _sentence(number: int, begin: str, rest: str, _: bool) -> Text:
    text = _line(f"{number}. {begin}{rest}")
    text.stylize("bold", text.plain.find(" ") + 1, len(f"{number}. {_plain(begin)}"))
    return text


def comparison_text(comparison: Comparison) -> str:
    """Return two variants side by side."""
    return _rendered(Group(*_comparison_parts(comparison)))


def comparison_json(comparison: Comparison) -> str:
    return plain_json(json.dumps(dataclasses.asdict(comparison), indent=1, ensure_ascii=False, allow_nan=False))


def _comparison_parts(comparison: Comparison) -> Iterator[RenderableType]:
    pairing = comparison.pairing
    is_one = comparison.study == comparison.second_study
    where = f"in study {comparison.study}" if is_one else f"of studies {comparison.study} and {comparison.second_study}"
    yield _line(f"B minus A, {pairing.method.value}, {where}")
    yield _line(f"A: {'' if is_one else f'{comparison.study}/'}{comparison.first}")
    yield _line(f"B: {'' if is_one else f'{comparison.second_study}/'}{comparison.second}")
    if pairing.differs:
        yield _line(f"Seeds are no pairs, as the studies differ in {'; '.join(pairing.differs)}.")
    if pairing.left_out:
        yield _line(f"Not in both studies, and left out: {'; '.join(pairing.left_out)}.")
    if comparison.judged is not None:
        yield Text()
        yield from map(_line, _verdict_lines(comparison, comparison.judged))
    yield Text()
    yield _line("Descriptive: the intervals below are at 95 %, not adjusted for their number, and give no verdict.")
    if comparison.folds is not None:
        yield _line(f"{correction_text(comparison.folds)}.")
    yield Text()
    measured = [row for row in comparison.metrics if row.first is not None or row.second is not None]
    head = ("metric", "A", "B", "difference", "95 % interval", "better in")
    yield _table(Cells(head=head, rows=tuple(map(_comparison_row, measured))), title="")
    if comparison.withheld:
        yield Text()
        yield _line(f"Differences are withheld: {'; '.join(comparison.withheld)}.")
    if comparison.not_compared:
        yield Text()
        yield _line(f"Not the same in both studies, and left out: {'; '.join(comparison.not_compared)}.")
    if comparison.crossed is not None:
        found = comparison.crossed
        shown = cut(found.interval, 1.0, mean=found.mean)
        cells = differences_text([found.mean, shown.low, shown.high], "fraction")
        yield Text()
        yield _line(
            f"Test accuracy, for other seeds and other test {comparison.inputs} of the same kind: {cells[0]} points "
            f"(95 %: {cells[1]} to {cells[2]}; {found.seeds} seeds × {found.images:,} {comparison.inputs})."
        )
    sizes = zip(
        ("parameters", f"FLOPs per {comparison.inputs.removesuffix('s')}"),
        (comparison.parameters, comparison.flops),
        strict=True,
    )
    if not any(comparison.parameters):
        return
    yield Text()
    yield _line("; ".join(f"{what}: {count_text(first)} and {count_text(second)}" for what, (first, second) in sizes))


def _verdict_lines(comparison: Comparison, judged: JudgedPair) -> Iterator[str]:
    """Yield the verdict on the primary metric, what it is judged by, and over which family."""
    metric = next(row.metric for row in comparison.metrics if row.metric.name == judged.metric)
    words = f"B{VERDICT_WORDS[judged.verdict]}" if judged.verdict.is_decided else judged.verdict.value.capitalize()
    if judged.is_meaningful:
        words += ", meaningfully"
    elif judged.is_meaningful is False:
        words += ", possibly too small to matter"
    if judged.is_fragile:
        words += " (fragile: so few seeds cannot tell luck from effect)"
    counts = dict.fromkeys(judged.seeds)
    seeds = f"{' and '.join(map(str, counts))} seed{'s' if counts != {1: None} else ''}"
    size = ""
    if judged.mean is not None:
        found = Difference(n=min(judged.seeds), mean=judged.mean, interval=judged.interval)
        mean, interval = difference_cells(found, metric.unit, reach=reach_of(metric))
        level = f"{level_percent(judged.interval.level)}: {interval}; " if judged.interval is not None else ""
        size = f": {mean} ({level}{seeds})"
    yield f"{metric.label}: {words}{size}."
    pairs = f"the {judged.pairs:,} pairs" if judged.pairs > 1 else "the one pair"
    rope = (
        f" Too small to matter: within ±{given_difference(judged.rope, metric.unit)}."
        if judged.rope is not None
        else ""
    )
    yield f"Judged at an error rate of {level_percent(judged.alpha)} over {pairs} of {judged.family}.{rope}"


def _comparison_row(row: ComparedMetric) -> tuple[str, ...]:
    values = [value_text(spread.mean, row.metric.unit) if spread else NONE for spread in (row.first, row.second)]
    ties = f", {row.wins.ties} tied" if row.wins and row.wins.ties else ""
    wins = f"{row.wins.wins}/{row.wins.n}{ties}" if row.wins else NONE
    cells = difference_cells(row.difference, row.metric.unit, reach=reach_of(row.metric))
    return (row.metric.label, *values, *cells, wins)


def _table(cells: Cells, *, title: str) -> RenderableType:
    shown = replace(cells, rows=cells.rows[:_SHOWN_ROWS])
    left = len(cells.rows) - _SHOWN_ROWS
    parts = [
        *([Text(title, style="bold")] if title else []),
        Text(table_text(shown, width())),
        *([_line(f"and {left} more rows: see the report (--output DIR)")] if left > 0 else []),
    ]
    return Group(*parts)


def _line(text: str) -> Text:
    return Text(wrapped(_plain(text), width()))


def _plain(text: str) -> str:
    return " ".join(plain(text).split())


def _rendered(content: RenderableType) -> str:
    """Return text in the terminal's colours, or for a file, without colours."""
    console = Console(highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(content, soft_wrap=True)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())

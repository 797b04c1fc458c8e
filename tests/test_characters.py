"""Holds the rows that a terminal shows to its width, and to telling each verdict early and whole."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from factories import make_plan, make_runs
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from test_words import analysed, cells

from ablation.analysis import Analysis, analyse
from ablation.analysis.answer_records import Interval
from ablation.output import clipped
from ablation.records import Outcome
from ablation.report.characters import first_screen_text, in_terminal
from ablation.report.rows import first_screen

NORM = {"effect": "model.normalization"}
WIDTHS = st.integers(40, 200)
names = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cf")), min_size=1, max_size=30)


def shown(found: Analysis, columns: int) -> list[str]:
    return first_screen_text(first_screen(found), columns).plain.splitlines()


@pytest.fixture(scope="module")
def study() -> Analysis:
    return analysed(cells(depth=0.001, norm=0.05, both=0.052))


@settings(max_examples=25)
@given(WIDTHS, st.floats(-0.2, 0.2), st.floats(-0.2, 0.2))
def test_no_line_is_wider_than_the_terminal(columns: int, depth: float, norm: float) -> None:
    lines = shown(analysed(cells(depth, norm, depth + norm)), columns)

    assert max(map(cell_len, lines)) <= columns


@settings(max_examples=25)
@given(WIDTHS, names, names)
@example(80, "use_gradient_checkpointing_in_every_second_block_of_the_decoder_and_the_encoder", "a" * 90)
def test_long_and_wide_names_are_wrapped_and_lose_no_letter(columns: int, first: str, second: str) -> None:
    found = analysed(cells(depth=0.001, norm=0.05, both=0.052), questions=[NORM])
    answer = found.answers[0]
    change = replace(answer.changes[0], label=first, after=second)
    renamed = replace(found, answers=(replace(answer, changes=(change,)),))

    lines = shown(renamed, columns)
    assert max(map(cell_len, lines)) <= columns
    assert Counter("".join(f"{first}{second}".split())) <= Counter("".join(lines))


def test_twelve_questions_have_their_verdicts_within_sixteen_lines_of_80_columns(study: Analysis) -> None:
    questions = [{**NORM, "at": {"model.depth": depth}} for depth in (2, 3)]
    found = analysed(cells(depth=0.001, norm=0.05, both=0.052), questions=questions)
    many = replace(found, answers=found.answers * 6)

    head = shown(many, 80)[:16]
    assert (
        sum(bool(re.search(r" (helps|undecided|hurts|no meaningful difference) ", f"{line} ")) for line in head[1:])
        >= 12
    )


def test_columns_are_left_out_in_their_order_and_verdicts_never(study: Analysis) -> None:
    wide, usual, narrow = ("\n".join(shown(study, columns)) for columns in (160, 80, 40))

    assert "cost: " in wide
    assert "cost: " not in usual
    assert all("◆" in text for text in (wide, usual))
    assert "◆" not in narrow
    assert all(text.count("helps") >= 2 for text in (wide, usual, narrow))


def test_the_drawing_holds_the_mean_every_seed_and_the_band_where_they_are(study: Analysis) -> None:
    screen = first_screen(study)
    row = next(row for row in screen.rows if row.verdict == "helps")
    axis = screen.groups[0].axis

    line = next(line for line in shown(study, 120) if line.startswith("▲"))
    drawing = re.search(r"helps\s\s(.*?)\s\s[+−]\d", line[: line.index(row.effect) + 2])
    assert drawing is not None
    assert row.mean is not None
    assert axis.share(row.mean) > axis.share(0.0)
    assert line.index("░") < line.index("│") < line.index("◆")


def test_only_signs_that_are_drawn_are_explained(study: Analysis) -> None:
    without = [replace(answer, effect=None, differences=()) for answer in study.answers]
    nothing = shown(replace(study, answers=tuple(without)), 80)
    numbers, drawn = (shown(study, columns) for columns in (40, 80))

    for sign in "━◆•":
        assert (sign in "".join(nothing), sign in "".join(numbers), sign in "".join(drawn)) == (False, False, True)
    assert "░" not in "".join(numbers)
    assert not any("goes on" in line for line in drawn)


def test_bars_beyond_the_axis_end_in_arrows(study: Analysis) -> None:
    answer = next(answer for answer in study.answers if answer.changes[0].factor == "model.normalization")
    assert answer.effect is not None
    wide = replace(answer.effect, interval=Interval(low=-0.9, high=0.9, level=0.95))

    text = "\n".join(shown(replace(study, answers=(replace(answer, effect=wide),)), 80))
    assert "◂━" in text
    assert "━▸" in text


def test_a_failed_run_is_told_in_one_line_below_its_row() -> None:
    plan = make_plan(seeds=3)
    runs = make_runs(plan)
    error = f"Traceback\nRuntimeError: {'no room ' * 40}"
    runs[-1] = replace(runs[-1], outcome=Outcome.FAILED, error=error, metrics={})

    lines = shown(analyse(plan, runs), 80)
    told = [line for line in lines if "RuntimeError" in line]
    assert told
    assert all(line == clipped(line, 80) and line.endswith("…") for line in told)
    assert all(
        lines[lines.index(line) - 1].startswith("… ") or "incomplete" in lines[lines.index(line) - 1] for line in told
    )


def test_a_file_and_a_terminal_without_colours_get_no_escapes(study: Analysis, monkeypatch: pytest.MonkeyPatch) -> None:
    text = first_screen_text(first_screen(study), 80)

    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    assert "\x1b" not in in_terminal(text)
    assert in_terminal(text).splitlines() == [line.rstrip() for line in text.plain.splitlines()]

"""Holds the rows of the HTML report to the first screen they are drawn from: words, places, links, nothing harmful."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from factories import make_plan, make_runs
from markupsafe import Markup
from test_report_html import HOSTILE, Element, Page, check_harmless
from test_threats import record
from test_words import analysed, cells

from ablation.analysis import Analysis, Verdict, analyse
from ablation.api.result import StudyResult
from ablation.cli import main
from ablation.records import Outcome
from ablation.report.html import html_document
from ablation.report.page_rows import Address, no_address, rows_html
from ablation.report.rows import FirstScreen, first_screen
from ablation.tracking import MemoryTracker, StudyRecord, open_mlflow
from ablation.tracking.mlflow.tracker import MlflowTracker

QUESTIONS = (
    {"effect": "model.depth"},
    {"effect": "model.normalization"},
    {"effect": "model.normalization", "on": "test_loss", "meaningful": 0.01},
    {"interaction": ["model.depth", "model.normalization"]},
)


def address(run_id: str) -> str:
    return f"https://example.org/#/runs/{run_id}"


def a_study(*, names: Sequence[str] = ("none", "batch"), outcomes: dict[tuple[str, int], Outcome] | None = None):
    plan = make_plan(factors={"model.depth": (2, 3), "model.normalization": tuple(names)}, questions=QUESTIONS)
    return analyse(plan, make_runs(plan, outcomes=outcomes))


def drawn(analysis: Analysis, *, page: Address = no_address, screen: FirstScreen | None = None) -> Page:
    answers = rows_html(screen or first_screen(analysis), analysis, address=page)
    return Page(html_document("## Answers\n\nAs text.\n\n## Next", title="", pictures={}, answers=answers))


def within(page: Page, parent: Element, tag: str, name: str = "") -> list[Element]:
    return [
        each for each in page.all(tag) if parent in each.parents and (not name or each.attributes.get("class") == name)
    ]


def rows_of(page: Page) -> list[Element]:
    return [each for each in page.all("details") if str(each.attributes.get("class")).startswith("row ")]


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def study() -> Analysis:
    return a_study()


def test_the_rows_take_the_place_of_the_answers_as_text(study: Analysis) -> None:
    page = drawn(study)

    assert "As text." not in page.all("main")[0].text
    assert ["Answers", "Next"] == [heading.text for heading in page.all("h2")]
    check_harmless(page)


def test_every_row_has_all_its_words(study: Analysis) -> None:
    page, screen = drawn(study), first_screen(study)

    for element, row in zip(rows_of(page), screen.rows, strict=True):
        assert f"row {row.mark.name}" == element.attributes["class"]
        (summary,) = within(page, element, "summary")
        for text in (row.change, row.verdict, row.effect, row.bounds, " · ".join(row.costs)):
            assert words(text) in words(summary.text)
        assert words(row.sentence) in words(element.text)
        assert words(row.answer.estimand) in words(element.text)
    text = words(page.all("main")[0].text)
    assert all(words(line) in text for line in (screen.headline, *screen.lines, *(g.legend for g in screen.groups)))


def test_a_long_name_may_end_a_line_behind_what_joins_its_words() -> None:
    page = drawn(a_study(names=("none", "cosine_with_restarts")))

    changes = [each for each in page.all("span") if each.attributes.get("class") == "change"]
    assert any(within(page, change, "wbr") for change in changes)
    assert any("cosine_with_restarts" in change.text for change in changes)


def test_mean_bar_band_and_every_seed_lie_where_their_axis_says(study: Analysis) -> None:
    page, screen = drawn(study), first_screen(study)
    rows = iter(rows_of(page))

    for group in screen.groups:
        for row in group.rows:
            element = next(rows)
            share = {each: f"{100 * group.axis.share(each):.2f}%" for each in (0.0, row.low, row.mean, row.high)}
            (zero,) = within(page, element, "line", "zero")
            (bar,) = within(page, element, "line", "bar")
            (mean,) = within(page, element, "circle", "mean")
            dots = within(page, element, "circle", "dot")
            assert zero.attributes["x1"] == share[0.0]
            assert (bar.attributes["x1"], bar.attributes["x2"]) == (share[row.low], share[row.high])
            assert mean.attributes["cx"] == share[row.mean]
            assert [f"{100 * group.axis.share(dot.value):.2f}%" for dot in row.dots] == [
                dot.attributes["cx"] for dot in dots
            ]
            assert [f"seed {dot.seed}" for dot in row.dots] == [dot.text.partition(":")[0] for dot in dots]
            (band,) = within(page, element, "rect", "band")
            assert group.band is not None
            low, high = group.axis.share(-group.band), group.axis.share(group.band)
            assert (f"{100 * low:.2f}%", f"{100 * (high - low):.2f}%") == (
                band.attributes["x"],
                band.attributes["width"],
            )


def test_a_bar_that_goes_on_beyond_its_axis_is_cut_with_an_arrow_there(study: Analysis) -> None:
    screen = first_screen(study)
    first, *others = screen.groups
    row = replace(first.rows[0], low=first.axis.low - 1, high=first.axis.high + 1)
    other = replace(first.rows[1], low=first.axis.low, high=first.axis.high + 1)
    wide = replace(screen, groups=(replace(first, rows=(row, other)), *others))

    page = drawn(study, screen=wide)

    cuts = [[cut.attributes["x"] for cut in within(page, each, "svg", "cut")] for each in rows_of(page)]
    assert [["0.00%", "100.00%"], ["100.00%"], []] == cuts[:3]


def test_every_drawing_is_named_by_its_numbers_and_axes_are_for_eyes_alone(study: Analysis) -> None:
    page, screen = drawn(study), first_screen(study)

    labels = [svg.attributes["aria-label"] or "" for svg in page.all("svg") if svg.attributes.get("role") == "img"]
    assert len(screen.rows) == len(labels)
    for label, row in zip(labels, screen.rows, strict=True):
        assert label.startswith(f"interval from {row.bounds}; {len(row.dots)} seeds from ")
    axes = [each for each in page.all("div") if each.attributes.get("class") == "axis"]
    assert ["true"] * len(screen.groups) == [axis.attributes["aria-hidden"] for axis in axes]


def test_a_row_without_a_difference_says_what_happened_instead_of_a_drawing() -> None:
    failed = a_study(outcomes={("depth=3,normalization=batch", 1): Outcome.FAILED})
    diverged = a_study(outcomes={("depth=3,normalization=none", seed): Outcome.DIVERGED for seed in range(5)})
    for study, verdict in ((failed, Verdict.INCOMPLETE), (diverged, Verdict.UNSTABLE)):
        page, screen = drawn(study, page=address), first_screen(study)

        found = [(each, row) for each, row in zip(rows_of(page), screen.rows, strict=True) if row.mean is None]
        assert verdict in {row.answer.verdict for _, row in found}
        for element, row in found:
            assert [] == within(page, element, "svg")
            assert row.problem in element.text
            assert within(page, element, "a")
        check_harmless(page)


def test_dots_and_folds_link_to_the_runs_where_these_have_a_page(study: Analysis) -> None:
    page = drawn(study, page=address)

    for element, row in zip(rows_of(page), first_screen(study).rows, strict=True):
        (summary,) = within(page, element, "summary")
        dots = [link.attributes["href"] for link in within(page, summary, "a")]
        links = [link for link in within(page, element, "a") if summary not in link.parents]
        assert [address(dot.run_ids[-1]) for dot in row.dots] == dots
        assert [address(run_id) for dot in row.dots for run_id in dot.run_ids] == [
            link.attributes["href"] for link in links
        ]
        assert {variant.name for variant in study.variants} == {link.text for link in links}
    check_harmless(page)


@pytest.mark.parametrize("page", [no_address, lambda run_id: f"javascript:{run_id}", lambda _: "//example.org"])
def test_without_a_page_on_a_server_nothing_is_linked(study: Analysis, page: Address) -> None:
    found = drawn(study, page=page)

    assert [] == [link for row in rows_of(found) for link in within(found, row, "a")]


def test_links_of_a_row_have_a_bound_and_the_rest_is_counted() -> None:
    plan = make_plan(factors={"model.width": tuple(range(2, 12)), "model.depth": (2, 3)}, seeds=4)
    study = analyse(plan, make_runs(plan))

    page = drawn(study, page=address)

    row = next(each for each in rows_of(page) if "depth 2 → 3" in each.text)
    listed = [link for link in within(page, row, "a") if "li" in {parent.tag for parent in link.parents}]
    assert 40 == len(listed)
    assert f"And {len(plan.runs) - 40} more runs" in row.text


def test_of_many_rows_the_first_are_open_and_the_others_in_one_fold() -> None:
    plan = make_plan(factors={"model.width": tuple(range(100))}, seeds=2)
    study = analyse(plan, make_runs(plan))

    page = drawn(study)

    folds = [each for each in page.all("details") if each.attributes.get("class") == "more"]
    rows = rows_of(page)
    assert 99 == len(rows)
    assert 1 == len(folds)
    assert [False] * 24 + [True] * 75 == [folds[0] in row.parents for row in rows]
    assert folds[0].text.strip().startswith("75 more comparisons: 75 undecided")


@pytest.mark.parametrize("text", HOSTILE)
def test_names_are_text_in_rows_titles_and_links(text: str) -> None:
    study = a_study(names=("none", text))
    page = drawn(study, page=lambda run_id: f'https://example.org/"><script>{run_id}</script>')

    check_harmless(page)
    assert words("".join(c if c.isprintable() else " " for c in text))[:20] in words(page.all("main")[0].text)


def test_equal_arguments_give_equal_text(study: Analysis) -> None:
    first, second = (rows_html(first_screen(study), study, address=address) for _ in range(2))

    assert isinstance(first, Markup)
    assert first == second


def test_what_was_added_after_the_plan_was_locked_is_said_under_the_headline() -> None:
    plan = make_plan(seeds=5, locked_seeds=3)
    study = analyse(plan, make_runs(plan))

    assert "Seeds were added after the plan was locked (3 then, 5 now)" in drawn(study).all("main")[0].text


def test_a_crossover_and_an_interplay_have_their_marks() -> None:
    crossed = analysed(cells(depth=0.03, norm=0.03, both=0.0))

    marks = {str(row.attributes["class"]).removeprefix("row ") for row in rows_of(drawn(crossed))}
    assert {"crossover", "interplay"} & marks
    assert marks == {row.mark.name for row in first_screen(crossed).rows}


class Served(MemoryTracker):
    """A tracker whose runs have pages."""

    def run_address(self, record: StudyRecord, run_id: str) -> str:
        return f"https://example.org/{record.study_run_id}/{run_id}"


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a report's time; links are not in them."""
    monkeypatch.setattr("ablation.report.draw_figures", lambda *_, **__: defaultdict(tuple))


def test_reports_from_python_link_to_the_runs_that_the_tracker_knows_pages_of(undrawn: None, tmp_path: Path) -> None:
    tracker = Served()
    study = record(tracker, make_plan(seeds=2))
    result = StudyResult.recorded("quick", tracker)

    for text in (result.report("html"), result.save(tmp_path).read_text(encoding="utf-8")):
        assert f'href="https://example.org/{study.study_run_id}/' in text


def test_reports_from_the_command_line_link_to_the_runs(
    undrawn: None, store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(open_mlflow(store_uri), make_plan(seeds=1))
    monkeypatch.setattr(MlflowTracker, "run_address", lambda *words: f"https://example.org/{words[-1]}")
    words = ["summarize", "quick", "--tracking-uri", store_uri, "--format", "html", "--output", str(tmp_path)]

    done = CliRunner().invoke(main, words)

    for text in (done.output, (tmp_path / "report.html").read_text(encoding="utf-8")):
        assert 'href="https://example.org/' in text

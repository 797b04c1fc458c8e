"""What a person sees of report.html in a real browser: how long it is, what opens, what is printed."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import draw_vectors_alone
from factories import make_plan, make_runs

from ablation.analysis import analyse
from ablation.records import Outcome
from ablation.report import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: install requirements-dev.txt")
from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402 - skipped above where it is not

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in PATH: apt-get install chromium"),
]
STUDIES: dict[str, dict[str, Any]] = {
    "four variants": {
        "seeds": 12,
        "questions": [
            {"effect": "model.depth"},
            {"effect": "model.normalization"},
            {"effect": "model.normalization", "on": "test_loss"},
            {"interaction": ["model.depth", "model.normalization"]},
        ],
    },
    "a grid of 20": {"factors": {"model.width": (4, 6, 8, 12, 16), "model.depth": (1, 2, 3, 4)}, "seeds": 3},
    "100 variants of one factor": {"factors": {"model.width": tuple(range(100))}, "seeds": 2},
}
FOUR_SCREENS = 4 * 900


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The report of a study by its name above, or of one with failed runs."""
    written: dict[str, Path] = {}

    def report(name: str) -> Path:
        if name not in written:
            plan = make_plan(**STUDIES.get(name, {"seeds": 3}))
            failed = {(run.variant, run.seed): Outcome.FAILED for run in plan.runs if name == "failed" and run.seed}
            folder = tmp_path_factory.mktemp("report")
            with pytest.MonkeyPatch.context() as patch:
                draw_vectors_alone(patch)
                write_report(analyse(plan, make_runs(plan, outcomes=failed)), folder)
            written[name] = folder / "report.html"
        return written[name]

    return report


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, reports: Callable[[str], Path]) -> Iterator[Callable[..., Page]]:
    """Opens the report of a study in a window of a width."""
    contexts = []

    def open_report(name: str, *, width: int = 1440, at: str = "") -> Page:
        context = browser.new_context(viewport={"width": width, "height": 900})
        contexts.append(context)
        page = context.new_page()
        page.goto(f"{reports(name).as_uri()}{at}")
        return page

    yield open_report
    for context in contexts:
        context.close()


def size(page: Page) -> tuple[int, int]:
    width, height = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    return int(width), int(height)


@pytest.mark.parametrize("name", STUDIES)
def test_a_report_is_at_most_four_screens_long_whatever_the_number_of_variants(
    opened: Callable[..., Page], name: str
) -> None:
    assert size(opened(name))[1] <= FOUR_SCREENS


@pytest.mark.parametrize("width", [1440, 800, 390])
@pytest.mark.parametrize("name", [*STUDIES, "failed"])
def test_nothing_is_wider_than_the_window(opened: Callable[..., Page], name: str, width: int) -> None:
    assert size(opened(name, width=width))[0] == width


def test_the_first_screen_has_the_headline_and_every_row(opened: Callable[..., Page]) -> None:
    page = opened("four variants")

    for place in (*page.locator(".headline").all(), *page.locator(".row > summary").all()):
        box = place.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 900


@pytest.mark.parametrize("name", ["method", "simple-effects"])
def test_a_link_to_what_is_folded_opens_it(opened: Callable[..., Page], name: str) -> None:
    page = opened("four variants")
    assert not page.locator(f"#{name}").is_visible()

    page.locator(f"nav a[href='#{name}']").click()

    assert page.locator(f"#{name}").is_visible()
    assert page.locator("main details[open]").count() == 1


def test_the_contents_are_open_beside_a_report_and_folded_above_a_narrow_one(opened: Callable[..., Page]) -> None:
    assert opened("four variants").locator("nav a").first.is_visible()

    narrow = opened("four variants", width=390)
    assert not narrow.locator("nav a").first.is_visible()
    narrow.locator("nav summary").click()
    assert narrow.locator("nav a").first.is_visible()


def test_a_row_opens_by_keyboard_to_its_sentence(opened: Callable[..., Page]) -> None:
    page = opened("four variants")
    row = page.locator(".row").first
    assert not row.locator(".inside").is_visible()

    row.locator("> summary").focus()
    page.keyboard.press("Enter")

    assert row.locator(".inside").is_visible()


def test_print_unfolds_everything(opened: Callable[..., Page]) -> None:
    page = opened("four variants")
    folded = page.locator("main details > :not(summary)")
    assert not any(each.is_visible() for each in folded.all())

    page.emulate_media(media="print")

    assert all(each.is_visible() for each in folded.all())


def test_errors_of_failed_runs_are_in_sight(opened: Callable[..., Page]) -> None:
    page = opened("failed")

    assert page.get_by_role("cell", name="RuntimeError: lost | worker").first.is_visible()
    assert page.locator("[aria-labelledby=failed-runs]").get_by_text("--retry-failed").is_visible()


def test_nothing_is_loaded_and_no_script_runs(browser: Browser, reports: Callable[[str], Path]) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))

    page.goto(reports("four variants").as_uri())

    assert [reports("four variants").as_uri()] == [url for url in asked if not url.startswith("data:")]
    assert [] == said
    page.close()


def test_every_figure_is_shown(opened: Callable[..., Page]) -> None:
    page = opened("four variants")
    page.emulate_media(media="print")

    widths = page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert len(widths) > 8
    assert all(width > 300 for width in widths)


def test_a_report_of_four_variants_weighs_below_400_kb(reports: Callable[[str], Path]) -> None:
    assert reports("four variants").stat().st_size < 400_000

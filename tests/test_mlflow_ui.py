"""What a person sees who opens the printed links: MLflow's real UI over a real study, driven in headless Chromium."""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TINY, command_environment, forked_server
from forking import Starter
from mlflow import MlflowClient

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: install requirements-dev.txt")
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright  # noqa: E402 - skipped above where it is not

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in PATH: apt-get install chromium"),
]

HOSTILE = "Is **it** <img src=x onerror=alert(1)> [safe](javascript:alert(1)), @someone :smile: | `code`?"
WAIT_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A finished study over a server that is up: its links, what `ablation ui` prints, and its headline."""

    address: str
    links: Mapping[str, str]
    printed: str
    headline: str


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory, data_cache: Path, empty_store: Path, starter: Starter
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("ui")
    environment = command_environment(folder, data_cache)
    (folder / "tiny.yaml").write_bytes(TINY + f"description: {json.dumps(HOSTILE)}\n".encode())
    command = ["-m", "ablation", "study", "tiny.yaml", "--executor", "inline", "--json"]
    shutil.copy(empty_store, folder / "server.db")
    with forked_server(folder, starter) as address:
        environment["MLFLOW_TRACKING_URI"] = address
        done = starter.run(command, environment=environment, folder=folder)
        assert 0 == done.returncode, done.stderr
        links = json.loads(done.stdout)["links"]
        printed = starter.run(["-m", "ablation", "ui"], environment=environment, folder=folder).stdout
        study_run = MlflowClient(address).get_run(links["study run"].rpartition("/")[2].partition("?")[0])
        headline = study_run.data.tags["ablation.headline"]
        yield Served(address=address, links=links, printed=printed, headline=headline)


@pytest.fixture
def links(served: Served) -> Mapping[str, str]:
    return served.links


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that has never been to MLflow, wide enough for a table beside MLflow's panels."""
    yield from opened(browser, width=2200, height=1200)


@pytest.fixture
def screen(browser: Browser) -> Iterator[Page]:
    """The same on a screen that people have."""
    yield from opened(browser, width=1440, height=900)


def opened(browser: Browser, *, width: int, height: int) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    yield context.new_page()
    context.close()


def is_in_sight(shown: Locator, within: Locator | None = None) -> bool:
    """Whether all of an element is on the screen, and within another where that is given, without scrolling."""
    box, size = shown.bounding_box(), shown.page.viewport_size
    assert box is not None
    assert size is not None
    room = (within.bounding_box() if within is not None else None) or {"x": 0, "y": 0, **size}
    across = room["x"] <= box["x"] and box["x"] + box["width"] <= room["x"] + room["width"]
    return across and 0 <= box["y"] and box["y"] + box["height"] <= size["height"]


def test_the_one_link_that_is_printed_shows_the_verdict_at_once(screen: Page, served: Served) -> None:
    (line,) = served.printed.splitlines()
    name, _, link = line.partition(": ")

    screen.goto(link)  # and no click

    verdict = screen.frame_locator("iframe").get_by_text(served.headline, exact=True).first
    expect(verdict).to_be_visible()
    assert ("tiny", True) == (name, is_in_sight(verdict))
    screen.get_by_role("tab", name="Overview").click()
    expect(screen.get_by_text(served.headline, exact=True)).to_be_visible()
    assert screen.url.startswith(served.links["study run"].partition("?")[0])


def test_metrics_are_in_sight_in_the_table_of_runs_and_the_baseline_comes_first(
    screen: Page, links: Mapping[str, str]
) -> None:
    screen.goto(links["runs"])

    table = screen.locator(".ag-center-cols-viewport")
    for column in ("test_accuracy", "test_loss", "training_seconds"):
        head = screen.locator(".ag-header-cell").get_by_text(column, exact=True)
        expect(head).to_be_visible()
        assert is_in_sight(head, table), column
    names = screen.locator("[role=gridcell]").get_by_text("/seed-", exact=False)
    expect(names.first).to_have_text("depth=1,normalization=none/seed-0")
    assert is_in_sight(names.first)


def test_the_list_of_experiments_says_what_was_found(screen: Page, served: Served) -> None:
    screen.goto(f"{served.address}/#/experiments")

    row = screen.get_by_role("row").filter(has=screen.get_by_role("link", name="tiny", exact=True))
    expect(row).to_contain_text(served.headline[:12])
    expect(row).to_contain_text("verdicts")


def test_the_study_run_has_effects_as_metrics_and_verdicts_as_tags(page: Page, links: Mapping[str, str]) -> None:
    page.goto(links["study run"])

    expect(page.get_by_text("effect.depth 1 to 2.low", exact=True)).to_be_visible()
    expect(page.get_by_text("verdict.depth 1 to 2", exact=False).first).to_be_visible()
    expect(page.get_by_text("digits (", exact=False).first).to_be_visible()


def test_the_answers_are_shown_as_a_table(page: Page, links: Mapping[str, str]) -> None:
    page.goto(links["report"].replace("report.html", "answers.json"))

    for head in ("change", "verdict", "effect", "seeds"):
        expect(page.get_by_role("columnheader").get_by_role("button", name=head, exact=True)).to_be_visible()
    expect(page.get_by_role("cell", name="depth 1 → 2", exact=True)).to_be_visible()


def test_the_runs_link_shows_levels_seed_and_metrics_as_columns(page: Page, links: Mapping[str, str]) -> None:
    page.goto(links["runs"])

    expect(page.get_by_text("depth=2,normalization=batch/seed-1", exact=True)).to_be_visible()
    columns = page.locator(".ag-header-cell")
    for column in ("model.depth", "model.normalization", "seed", "test_accuracy", "test_loss", "training_seconds"):
        expect(columns.get_by_text(column, exact=True)).to_be_visible()


def test_the_link_by_variant_shows_a_row_per_variant_with_the_mean_of_its_seeds(
    page: Page, links: Mapping[str, str]
) -> None:
    page.goto(links["by variant"])

    for variant in ("depth=1,normalization=none", "depth=2,normalization=batch"):
        expect(page.get_by_text(f"Group: {variant}", exact=False)).to_be_visible()
    expect(page.get_by_text("/seed-", exact=False)).to_have_count(0)
    expect(page.locator(".ag-center-cols-container [role=row]")).to_have_count(4)
    mean, means = page.locator("[role=gridcell][col-id='metrics.`test_accuracy`']").first.inner_text().split()
    assert 0 <= float(mean) <= 1
    assert "(average)" == means


def test_the_charts_link_draws_the_metric_by_variant_and_epoch(page: Page, links: Mapping[str, str]) -> None:
    page.goto(links["charts"])

    expect(page.get_by_role("heading", name="test_accuracy", exact=True)).to_have_count(2)
    expect(page.locator(".js-plotly-plot .barlayer .point").first).to_be_visible()
    expect(page.locator(".js-plotly-plot .scatterlayer .trace").first).to_be_visible()


def test_the_study_run_says_the_verdicts_shows_the_figure_and_leads_to_the_report(page: Page, served: Served) -> None:
    page.goto(served.links["study run"])
    expect(page.get_by_text(served.headline, exact=True)).to_be_visible()
    expect(
        page.get_by_text("depth=2,normalization=batch/seed-1", exact=False).first
    ).to_be_visible()  # laid out at last
    page.get_by_text("Show more", exact=True).first.click()

    expect(page.get_by_text("normalization none → batch", exact=False).last).to_be_visible()
    figure = page.locator("img[src*='note-forest.png']")
    expect(figure).to_be_visible()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=figure.element_handle())
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="report.", exact=False).first.click()
    expect(opened.value.get_by_text("report.", exact=False).first).to_be_visible()


def test_a_child_run_shows_its_curves_as_charts(page: Page, links: Mapping[str, str]) -> None:
    page.goto(links["runs"])
    page.get_by_text("depth=1,normalization=none/seed-0", exact=True).click()
    page.get_by_role("tab", name="Model metrics").click()
    page.get_by_placeholder("Search metric charts").fill("train_loss")

    expect(page.get_by_role("heading", name="train_loss", exact=True)).to_be_visible()
    expect(page.locator(".js-plotly-plot .scatterlayer .trace").first).to_be_visible()


def test_the_experiment_says_what_is_asked_and_takes_hostile_words_as_words(
    page: Page, links: Mapping[str, str]
) -> None:
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(links["runs"].partition("&")[0])

    expect(page.get_by_text(HOSTILE, exact=False).first).to_be_visible()
    assert 0 == page.locator("img[src='x'], a[href*='javascript'], a[href*='github.com/someone']").count()
    assert [] == dialogs

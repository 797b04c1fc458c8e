"""What a person sees who opens the printed links: MLflow's real UI over a real study, driven in headless Chromium."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from conftest import TINY, command_environment, forked_server
from forking import Starter

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: install requirements-dev.txt")
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402 - skipped above where it is not

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in PATH: apt-get install chromium"),
]

HOSTILE = "Is **it** <img src=x onerror=alert(1)> [safe](javascript:alert(1)), @someone :smile: | `code`?"
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def links(
    tmp_path_factory: pytest.TempPathFactory, data_cache: Path, empty_store: Path, starter: Starter
) -> Iterator[Mapping[str, str]]:
    """The links that a finished study prints, over a server that is up."""
    folder = tmp_path_factory.mktemp("ui")
    environment = command_environment(folder, data_cache)
    (folder / "tiny.yaml").write_bytes(TINY + f"description: {json.dumps(HOSTILE)}\n".encode())
    command = ["-m", "ablation", "study", "tiny.yaml", "--executor", "inline", "--json"]
    shutil.copy(empty_store, folder / "server.db")
    with forked_server(folder, starter) as address:
        environment["MLFLOW_TRACKING_URI"] = address
        done = starter.run(command, environment=environment, folder=folder)
        assert 0 == done.returncode, done.stderr
        yield json.loads(done.stdout)["links"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that has never been to MLflow, wide enough for a table beside MLflow's panels."""
    context = browser.new_context(viewport={"width": 2200, "height": 1200})
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    yield context.new_page()
    context.close()


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


def test_the_study_run_says_the_verdicts_shows_the_figure_and_leads_to_the_report(
    page: Page, links: Mapping[str, str]
) -> None:
    page.goto(links["study run"])
    expect(page.get_by_text("comparisons decided (family-wise error rate 5 %)", exact=False)).to_be_visible()
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

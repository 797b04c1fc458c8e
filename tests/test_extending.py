"""The templates of docs/extending.md: short, and whole studies that run as they stand there."""

import re
from pathlib import Path

import pytest
from conftest import answer_alone

from ablation.coordinator.request import Request
from ablation.executors import InlineExecutor
from ablation.pipeline import run_study
from ablation.records import Outcome
from ablation.scheduling import default_storage
from ablation.storage.state import State
from ablation.study import Override, load_study
from ablation.tracking import Tracker

TEXT = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```\w+\n# (\S+)\n(.*?)```", re.DOTALL)
LONGEST = 30
WITH_FIGURES = ("own-training",)  # drawing takes long; what else is drawn is tested in test_report_tuning and _designs


def studies_in(text: str) -> dict[str, dict[str, str]]:
    """Return by study the files of a page; a study file ends what belongs together."""
    found: dict[str, dict[str, str]] = {}
    files: dict[str, str] = {}
    for name, content in BLOCK.findall(text):
        files[name] = content
        if name == "study.yaml":
            found[re.search(r"name: (\S+)", content)[1]] = files
            files = {}
    return found


STUDIES = studies_in(TEXT)


def test_there_is_a_template_of_each_kind_of_extension() -> None:
    assert list(STUDIES) == [
        *("own-model", "own-parts", "own-data"),
        *("own-regression", "own-labels", "own-tokens", "own-segmentation"),
        *("own-loss", "own-metric", "own-numbers", "own-training", "own-loop", "tuned", "tuned-loop"),
    ]


@pytest.mark.parametrize(("name", "content"), BLOCK.findall(TEXT), ids=lambda value: value[:20].strip())
def test_a_template_is_at_most_thirty_lines(name: str, content: str) -> None:
    assert len(content.strip().splitlines()) <= LONGEST


@pytest.mark.slow
@pytest.mark.usefixtures("vector_figures")
@pytest.mark.parametrize("study_name", STUDIES)
def test_a_template_runs_as_it_stands(
    study_name: str, tmp_path: Path, mlflow_tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    if study_name not in WITH_FIGURES:
        answer_alone(monkeypatch)
    for name, content in STUDIES[study_name].items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    shorter = [Override(path="seeds", value=2)]
    if "data: {name: digits" in STUDIES[study_name]["study.yaml"]:
        shorter.append(Override(path="data.limit", value=300))
    if study_name.startswith("tuned"):
        shorter += [Override(path="tune.trials", value=2)]
    study = load_study(tmp_path / "study.yaml", overrides=shorter, name=study_name)
    state = State(folder=tmp_path / "state")

    steps = run_study(
        Request(
            study=study,
            tracker=mlflow_tracker,
            executor=InlineExecutor(device="cpu"),
            storage_url=default_storage(state.folder),
            state=state,
        )
    )
    while True:
        try:
            next(steps)
        except StopIteration as end:
            outcome = end.value
            break

    assert outcome.ended == {Outcome.DONE: len(study.variants) * 2}
    assert outcome.report is not None

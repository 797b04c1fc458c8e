"""The templates of docs/frameworks.md: killed and resumed, they come to what undisturbed ones come to."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from test_extending import studies_in

from ablation.coordinator.planning import plan_of
from ablation.datasets import Dataset, prepare
from ablation.records import Outcome, Plan, PlannedRun, RunResult
from ablation.storage.run_folder import RunFolder
from ablation.study import Override, Study, load_study
from ablation.worker import TuningJob, checkpoints, run_tuning_job
from ablation.worker.own_checkpoints import OwnCheckpoints
from ablation.worker.run import Job, run_jobs

TEXT = (Path(__file__).parents[1] / "docs" / "frameworks.md").read_text(encoding="utf-8")
MOST_LINES = 15
PACKAGES = {"lightning-digits": "lightning", "transformers-words": "transformers"}


TEMPLATES = studies_in(TEXT)


def test_there_is_a_template_of_each_framework() -> None:
    assert list(PACKAGES) == list(TEMPLATES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_stands_beside_the_users_code_is_at_most_fifteen_statements(name: str) -> None:
    (beside,) = (content for file, content in TEMPLATES[name].items() if file.startswith("study_"))
    lines = [line for line in beside.splitlines() if line.strip() and not line.startswith(("import", "from"))]

    assert len(lines) <= MOST_LINES


@pytest.fixture(params=TEMPLATES)
def study(request: pytest.FixtureRequest, tmp_path: Path) -> Study:
    pytest.importorskip(PACKAGES[request.param])
    for name, content in TEMPLATES[request.param].items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    is_digits = "name: digits" in TEMPLATES[request.param]["study.yaml"]
    return load_study(tmp_path / "study.yaml", overrides=[Override(path="data.limit", value=150)] if is_digits else [])


@pytest.fixture
def dataset(study: Study, data_cache: Path) -> Dataset:
    settings = study.variants[0].settings.data
    assert settings is not None
    return prepare(settings, cache=data_cache, code=study.code)


Make = Callable[[str], Job]


@pytest.fixture
def make(study: Study, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    monkeypatch.setattr(checkpoints, "MOST_SHARE", float("inf"))

    def job(folder: str) -> Job:
        (tmp_path / folder).mkdir(exist_ok=True)
        return Job(
            planned=PlannedRun(identity="a" * 32, variant=study.variants[0].name, seed=0),
            settings=study.variants[0].settings,
            heldout_split="validation",
            data_folder=dataset.folder,
            folder=RunFolder(path=tmp_path / folder),
            device="cpu",
            code=study.code,
            expected_metrics=("accuracy",),
            study=study.name,
        )

    return job


def run(job: Job) -> RunResult:
    (result,) = run_jobs([job])
    assert result.outcome is Outcome.DONE, result.error
    return result


def killed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill a run when its second checkpoint has been kept and its third epoch is trained and not kept."""
    child = os.fork()
    if child == 0:
        keep, kept = OwnCheckpoints.keep, [0]

        def counted(self: OwnCheckpoints, state: object, epochs: object) -> None:
            kept[0] += 1
            if kept[0] == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            keep(self, state, epochs)  # type: ignore[arg-type]

        monkeypatch.setattr(OwnCheckpoints, "keep", counted)
        run_jobs([job])
        os._exit(0)
    assert -signal.SIGKILL == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_template_that_is_killed_goes_on_from_its_own_last_checkpoint(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, interrupted = make("undisturbed"), make("interrupted")
    expected = run(undisturbed)
    killed(interrupted, monkeypatch)
    assert 2 == interrupted.folder.kept_checkpoints()[0][0]

    found = run(interrupted)

    assert expected.metrics["accuracy"] == found.metrics["accuracy"]
    curves = [[dict(epoch.metrics) for epoch in job.folder.epochs()] for job in (undisturbed, interrupted)]  # type: ignore[union-attr]
    assert 3 == len(curves[0])
    assert curves[0] == curves[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_template_is_pruned_in_tuning_and_its_parts_and_parameters_are_planned(
    study: Study, dataset: Dataset, make: Make
) -> None:
    plan: Plan = plan_of(study, data=dataset.facts)
    job = make("trial")
    values = {name: getattr(job, name) for name in Job.__dataclass_fields__}
    hopeless = {"objective": "val_accuracy", "stops_below": (2.0,), "is_minimized": False, "variant": "one"}

    result = run_tuning_job(TuningJob(**{**values, **hopeless}))

    assert (Outcome.DONE, 1, 1.0) == (result.outcome, result.epochs, result.metrics["pruned"]), result.error
    sizes = [(summary.parameters, summary.flops) for summary in plan.summaries.values()]
    assert all(parameters and flops for parameters, flops in sizes)
    assert 1 < len(set(sizes))

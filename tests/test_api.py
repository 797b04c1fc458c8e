"""What `import ablation` gives: a study run, opened, planned and compared from Python, and a trained model back."""

import dataclasses
import io
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import PROJECT, TINY, answer_alone
from factories import make_plan, make_runs, plan_of

import ablation
from ablation.analysis import RuleChange, StudyLooks, analyse
from ablation.analysis.power import noise_of, power_of
from ablation.api.result import StudyResult
from ablation.api.studies import Noise, recorded_noise
from ablation.api.variants import variant_name
from ablation.cli import main
from ablation.code import CodeFolders
from ablation.coordinator.planning import outline_of
from ablation.errors import (
    AblationError,
    ArgumentInvalid,
    CodeInvalid,
    CodeUntrusted,
    ModelNotKept,
    NameUnknown,
    NoiseUnknown,
    NoResults,
    StudyFileError,
    StudyUnknown,
    StudyWithin,
)
from ablation.pipeline import summarize_study
from ablation.records import MODEL_FILE, FunctionTraining, ModelSettings, Outcome, Plan, RunResult
from ablation.report import report_text
from ablation.report.figures import KINDS
from ablation.report.power_text import power_lines
from ablation.stopping import stopping
from ablation.study import Study, parse_study, study_of_values
from ablation.tracking import MemoryTracker, StudyRecord, open_mlflow

FILE: Mapping[str, Any] = {
    "name": "tiny",
    "data": {"name": "digits", "limit": 60, "validation": "none"},
    "model": {"name": "cnn", "depth": 1, "width": 2, "dense": (8,), "normalization": "none"},
    "training": {"epochs": 2, "batch_size": 16},
    "factors": {"model.depth": [1, 2], "model.normalization": ["none", "batch"]},
    "seeds": 2,
}


def of_own_metric(name: str) -> Study:
    """Return a study whose training function, which is never called, measures a metric of its own."""
    training = {"name": "collections:OrderedDict", "depth": 1}
    metric = {"name": name, "direction": "maximize"}
    return study_of_values(
        {"name": "own", "training": training, "factors": {"training.depth": [1, 2]}, "metric": metric}
    )


MAXIMIZED = {"name": "churn", "direction": "maximize"}
HEAVY = {"torch", "mlflow", "pandas", "click", "optuna", "numpy", "matplotlib", "pydantic", "rich"}


@pytest.fixture
def place(store_uri: str, data_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a fresh store, which the environment names, and prepared data; no figures are drawn."""
    answer_alone(monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    monkeypatch.delenv("ABLATION_STATE_DIR", raising=False)
    (tmp_path / ".ablation").mkdir()
    (tmp_path / ".ablation" / "data").symlink_to(data_cache)
    return tmp_path


@pytest.fixture
def untrained() -> StudyResult:
    """The result of FILE's study, whose runs are recorded as done and kept no model, remembered in memory."""
    return all_done(plan_of(study_of_values(FILE)))


def all_done(plan: Plan) -> StudyResult:
    tracker = MemoryTracker()
    record = tracker.open_study(plan)
    for run in make_runs(plan):
        run_id = tracker.start_run(record, run.planned, {"device": "cpu"}, attempt="first")
        result = RunResult(identity=run.planned.identity, outcome=Outcome.DONE, metrics=run.metrics, epochs=2)
        tracker.finish_run(run_id, result, None)
    return StudyResult.recorded(plan.name, tracker)


def keep(result: StudyResult, state: bytes) -> None:
    """Give every run a file of its model's state."""
    assert isinstance(result.tracker, MemoryTracker)
    for run in result.tracker._runs.values():
        run.files[MODEL_FILE] = state


def recorded(**changes: Any) -> StudyResult:
    """Return the result of a study that was never trained; `changes` are those of `make_runs`."""
    plan = make_plan()
    runs = make_runs(plan, **changes)
    ended = {kind: sum(run.outcome is kind for run in runs) for kind in Outcome}
    record = StudyRecord(study_run_id="s", experiment_id="0", plan=plan, status="FINISHED")
    return StudyResult(record=record, ended=ended, analysis=analyse(plan, runs), tracker=MemoryTracker())


class TestImport:
    def test_importing_loads_none_of_the_heavy_libraries(self) -> None:
        code = "import ablation, sys; print(*{name.partition('.')[0] for name in sys.modules})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)

        assert set() == HEAVY & set(done.stdout.split())

    def test_every_name_that_is_exported_is_there(self) -> None:
        assert set(ablation.__all__) <= set(dir(ablation))
        assert all(callable(getattr(ablation, name)) for name in ablation.__all__)

    def test_a_name_that_is_not_there_is_an_attribute_error(self) -> None:
        with pytest.raises(AttributeError, match="no attribute 'rum'"):
            _ = ablation.rum

    def test_it_is_marked_as_typed(self) -> None:
        assert (PROJECT / "ablation" / "py.typed").exists()


class TestRun:
    def test_a_mapping_and_the_file_that_says_the_same_are_the_same_study(self) -> None:
        of_file, of_mapping = parse_study(TINY, source="tiny.yaml"), study_of_values(FILE)

        assert of_file.spec == of_mapping.spec
        assert of_file.runs(data_digest="0" * 32) == of_mapping.runs(data_digest="0" * 32)

    def test_a_study_runs_and_its_result_has_what_was_recorded(self, place: Path) -> None:
        result = ablation.run(FILE, seeds=1, set={"model.width": np.int64(3)}, executor="inline", progress=False)

        assert "tiny+model.width=3" == result.name
        assert {Outcome.DONE: 4} == result.ended
        assert result.is_complete
        assert ["depth=1,normalization=none", 0] == result.frame().loc[0, ["variant", "seed"]].tolist()
        assert [4, 8] == [len(result.frame()), len(result.epochs())]
        again = ablation.open(result.name)
        assert (result.answers, result.ended) == (again.answers, again.ended)
        assert result.links == again.links
        exported = CliRunner().invoke(main, ["export", result.name]).stdout
        assert exported == result.frame().to_csv(index=False, lineterminator="\n")
        assert CliRunner().invoke(main, ["summarize", result.name, "--json"]).stdout == result.report("json")
        assert (place / ".ablation" / "reports" / result.name / "report.md").exists()

    @pytest.mark.slow
    def test_a_file_runs_by_its_path_under_another_name(self, place: Path) -> None:
        (place / "tiny.yaml").write_bytes(TINY)
        changes = {"factors": {"model.depth": [1, 2]}}

        result = ablation.run("tiny.yaml", seeds=1, set=changes, name="other", executor="inline", state_dir="elsewhere")

        assert "other" == result.name
        assert (place / "elsewhere" / "reports" / "other").exists()

    @pytest.mark.slow
    def test_runs_that_fail_are_told_and_raise_nothing(self, place: Path) -> None:
        (place / "t.py").write_text(
            "def train(settings, seed, report):\n"
            "    if settings['training']['x'] == 2:\n        raise SystemExit('no')\n"
            "    return {'score': 0.5}\n"
        )
        file = {
            "name": "partly",
            "training": {"name": "t.py:train", "x": 1},
            "factors": {"training.x": [1, 2]},
            "metric": {"name": "score", "direction": "maximize"},
            "seeds": 2,
        }

        result = ablation.run(file, executor="inline", progress=False)

        assert {Outcome.DONE: 2, Outcome.FAILED: 2} == result.ended
        assert not result.is_complete
        assert "2 done, 0 diverged, 2 failed of 4 runs" in repr(result)
        assert "2 failed" in result._repr_html_()
        assert ["incomplete"] == [answer.verdict for answer in result.answers]

    def test_a_variable_that_names_a_run_is_the_callers_own_again(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)

        with pytest.raises(AblationError, match="MLFLOW_RUN_ID"):
            ablation.run(FILE, executor="inline", progress=False)
        assert "0" * 32 == os.environ["MLFLOW_RUN_ID"]

    @pytest.mark.parametrize(
        ("file", "options", "words"),
        [
            ({"name": print}, {}, "is a builtin_function_or_method: keep it in a .py file .* @ name"),
            ({"model": {"depth": float("nan")}}, {}, "must be a finite number, not nan @ model.depth"),
            ({"data": {"limit": {1, 2}}}, {}, "is a set, which a study file cannot hold.* @ data.limit"),
            ({1: 2}, {}, "a key must be text, not 1"),
            ({**FILE, "modl": 1}, {}, "unknown key 'modl'; did you mean 'model'. @ modl"),
            (FILE, {"set": {"training.epoch": 1}}, "did you mean 'epochs'"),
            (FILE, {"set": {"training.epochs": float("inf")}}, "must be a finite number, not inf @ .*training.epochs"),
            (FILE, {"seeds": 0}, "@ seeds"),
            (FILE, {"seeds": {"looks": [5, 3]}}, "looks must rise, and 3 stands after 5 @ seeds.looks"),
            (FILE, {"seeds": [3, 3]}, "has seed 3 twice.* @ seeds"),
            (FILE, {"executor": "cluster"}, "there is no executor 'cluster'; there are: auto, inline, processes"),
            (FILE, {"workers": 0}, "0 is no number from 1 to 1024 @ workers"),
            (FILE, {"fuse": True}, "True is no number from 1 to 1024 @ fuse"),
            (FILE, {"fresh": True, "reuse": True}, "--fresh"),
            (FILE, {"device": "cuda:99"}, "there is no device 'cuda:99' here"),
            (FILE, {"tracking_uri": "nonsense"}, "'nonsense' is no address of an MLflow store"),
            (FILE, {"storage": "nonsense"}, "nonsense"),
            (FILE, {"storage": 5}, "storage must be the address of a database"),
            (FILE, {"tracking_uri": Path("mlruns")}, "tracking_uri must be the address of an MLflow store"),
            (FILE, {"state_dir": 5}, "state_dir must be a path"),
            (FILE, {"set": ["training.epochs=1"]}, "set must be a mapping such as .*, not .'training.epochs=1'.$"),
            (FILE, {"set": ""}, "set must be a mapping"),
            (FILE, {"executor": ["inline"]}, "executor must be text"),
            (FILE, {"fresh": "no"}, "fresh must be True or False, not 'no'"),
            (FILE, {"cudnn_benchmark": "off"}, "cudnn_benchmark must be True or False"),
            (None, {}, "file must be the path of a study file, or a mapping with its keys, not None"),
            ("", {}, "file must be the path of a study file, not ''"),
            ("absent.yaml", {}, "cannot read the study file absent.yaml"),
        ],
    )
    def test_a_mistake_is_an_error_that_says_where(
        self, file: Any, options: dict[str, Any], words: str, place: Path
    ) -> None:
        with pytest.raises(AblationError, match=words):
            ablation.run(file, **{"progress": False, **options})
        assert [] == [path.name for path in (place / ".ablation").iterdir() if path.name not in ("data", "locks")]

    def test_code_that_runs_a_study_while_a_study_imports_it_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "again.py").write_text("import ablation\nablation.run({})\ntrain = print\n")

        with pytest.raises(StudyWithin, match='Put the call below `if __name__ == "__main__":`'):
            CodeFolders(folders=(tmp_path,)).load("again.py:train", path="training.name")

    def test_a_mapping_that_holds_itself_is_refused(self) -> None:
        loop: dict[str, Any] = {"name": "loop"}
        loop["model"] = loop

        with pytest.raises(StudyFileError, match="is nested more than 50 levels deep"):
            ablation.plan(loop)


FIRST_RUN_INTERRUPTS = """
import os, signal

def train(settings, seed, report):
    if not os.path.exists("mark") and settings["training"]["x"] == 2:
        open("mark", "w").close()
        INTERRUPT
        report(score=0.1)
        report(score=0.2)
    return {"score": 0.5}
"""
OWN: Mapping[str, Any] = {
    "name": "own",
    "training": {"name": "t.py:train", "x": 1},
    "factors": {"training.x": [1, 2]},
    "metric": {"name": "score", "direction": "maximize"},
    "seeds": 2,
}


@pytest.mark.usefixtures("hearing_signals")
class TestInterrupt:
    @pytest.fixture
    def interrupted(self, place: Path) -> Path:
        interrupt = "os.kill(os.getpid(), signal.SIGINT)"
        (place / "t.py").write_text(FIRST_RUN_INTERRUPTS.replace("INTERRUPT", interrupt))
        return place

    @pytest.mark.slow
    def test_an_interrupt_keeps_what_ended_and_the_same_call_resumes(self, interrupted: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            ablation.run(OWN, executor="inline", progress=False)
        kept = ablation.open("own")
        assert ({Outcome.DONE: 1}, "KILLED") == (kept.ended, kept.record.status)

        assert {Outcome.DONE: 4} == ablation.run(OWN, executor="inline", progress=False).ended

    @pytest.mark.slow
    def test_the_handlers_are_what_they_were(self, interrupted: Path) -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]

        with pytest.raises(KeyboardInterrupt):
            ablation.run(OWN, executor="inline", progress=False)

        assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        assert not stopping.is_asked

    def test_a_second_interrupt_ends_no_process(self) -> None:
        from ablation.api.running import interruptible

        with interruptible():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            stopping._asked_at -= 60
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)

    def test_a_handler_of_the_callers_own_is_left_alone(self) -> None:
        from ablation.api.running import interruptible

        heard = []
        before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
        try:
            with interruptible():
                signal.raise_signal(signal.SIGINT)
        finally:
            signal.signal(signal.SIGINT, before)

        assert [signal.SIGINT] == heard

    @pytest.mark.slow
    def test_a_study_runs_outside_of_the_main_thread(self, place: Path) -> None:
        (place / "t.py").write_text(FIRST_RUN_INTERRUPTS.replace("INTERRUPT", "pass"))
        found: list[StudyResult] = []

        def run() -> None:
            found.append(ablation.run(OWN, executor="inline", progress=False))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(timeout=120)

        assert [{Outcome.DONE: 4}] == [result.ended for result in found]


class TestResult:
    def test_the_answers_are_those_of_the_report_in_its_order(self) -> None:
        result = recorded()

        assert result.analysis is not None
        assert result.analysis.answers == result.answers
        assert ["model.depth", "model.normalization"] == [answer.changes[0].factor for answer in result.answers]
        assert all(answer.effect is not None for answer in result.answers)

    @pytest.mark.parametrize("form", ["markdown", "json", "latex"])
    def test_a_report_is_the_text_that_the_command_prints(self, form: Any) -> None:
        result = recorded()

        assert result.analysis is not None
        assert report_text(result.analysis, form) == result.report(form)

    def test_a_form_that_there_is_not_is_told_with_those_there_are(self) -> None:
        with pytest.raises(AblationError, match="there is no form 'pdf'; there are: markdown, html, json, latex"):
            recorded().report("pdf")

    @pytest.mark.parametrize("name", ["forest", "slope"])
    def test_a_figure_is_the_first_of_its_kind(self, name: str) -> None:
        result = recorded()

        assert result.analysis is not None
        drawn = next(KINDS[name](result.analysis)).figure
        assert drawn.get_size_inches().tolist() == result.figure(name).get_size_inches().tolist()
        assert len(drawn.axes) == len(result.figure(name).axes)

    def test_a_figure_or_a_form_that_is_no_text_is_told(self) -> None:
        with pytest.raises(AblationError, match=r"figure must be the name of a figure, such as 'forest', not \[\]"):
            recorded().figure([])  # type: ignore[arg-type]
        with pytest.raises(AblationError, match="form must be the name of a form"):
            recorded().report([])  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["forrest", "tuning"])
    def test_a_figure_that_the_report_lacks_is_told_with_all_that_it_has(self, name: str) -> None:
        known = ", ".join(kind for kind in KINDS if kind not in ("tuning", "heat-map", "errors"))
        with pytest.raises(AblationError, match=f"has no figure '{name}'; it has: {known}$"):
            recorded().figure(name)

    def test_a_saved_report_is_whole(self, tmp_path: Path) -> None:
        page = recorded().save(tmp_path / "saved")

        assert tmp_path / "saved" / "report.html" == page
        assert {"report.md", "report.html", "report.json", "tables.tex", "tables-wide.tex", "figures"} == {
            path.name for path in page.parent.iterdir()
        }

    def test_a_notebook_shows_every_answer_as_a_row_of_text(self) -> None:
        result = recorded(outcomes={("depth=3,normalization=none", 0): Outcome.FAILED})
        page = result._repr_html_()

        assert len(result.answers) == page.count("<tr>") - 1
        assert "1 failed of 20 runs" in page
        assert "incomplete" in page

    def test_what_a_notebook_shows_holds_no_markup_of_a_study(self) -> None:
        from ablation.report.fragments import fragment
        from ablation.report.table import Table

        evil = "<img src=x onerror=alert(1)>&\x1b[2J"
        page = fragment([evil, evil], Table(head=(evil,), rows=((evil,),)))

        assert {"div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td"} == set(tags(page))
        assert "\x1b" not in page

    def test_its_repr_is_one_short_line(self) -> None:
        result = recorded()

        assert "<StudyResult 'quick': 20 done, 0 diverged, 0 failed of 20 runs; 1 of 2 comparisons decided>" == repr(
            result
        )
        assert str(result).startswith(repr(result))

    def test_a_study_without_a_result_has_no_answers_and_says_so(self) -> None:
        tracker = MemoryTracker()
        tracker.open_study(make_plan())

        result = StudyResult.recorded("quick", tracker)

        assert ((), {}) == (result.answers, result.ended)
        assert "0 done, 0 diverged, 0 failed of 20 runs" in result._repr_html_()
        assert repr(result) == str(result)
        with pytest.raises(NoResults):
            result.report()

    def test_a_study_that_is_not_there_is_told_with_those_near(self, place: Path) -> None:
        open_mlflow(os.environ["MLFLOW_TRACKING_URI"]).open_study(make_plan(name="tiny"))

        with pytest.raises(AblationError, match="near it: tiny"):
            ablation.open("tinny")

    @pytest.mark.parametrize(
        ("name", "rule", "words"),
        [
            (None, {}, "name must be the name of a recorded study, as text, not None"),
            ("tiny", {"alpha": 2}, "alpha must be a number above 0 and below 1, not 2"),
            ("tiny", {"alpha": True}, "alpha must be a number"),
            ("tiny", {"meaningful": 0}, "meaningful must be a number above 0, not 0"),
            ("tiny", {"metric": 1}, "metric must be the name of a metric, not 1"),
            ("tiny", {"metric": "f1"}, "there is no metric 'f1'"),
        ],
    )
    def test_a_mistake_in_what_is_opened_is_told(
        self, name: Any, rule: dict[str, Any], words: str, place: Path
    ) -> None:
        open_mlflow(os.environ["MLFLOW_TRACKING_URI"]).open_study(make_plan(name="tiny"))

        with pytest.raises(AblationError, match=words):
            ablation.open(name, **rule)

    @pytest.mark.parametrize("rule", [{"metric": "test_loss"}, {"meaningful": 0.2}, {"alpha": 0.1}])
    def test_it_is_judged_by_another_rule_as_the_command_judges_it(
        self, rule: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tracker = all_done(make_plan()).tracker
        monkeypatch.setattr("ablation.api.tracker_at", lambda _address: tracker)

        opened = ablation.open("quick", **rule)

        _, analysis = summarize_study("quick", tracker=tracker, change=RuleChange(**rule))
        assert analysis == opened.analysis
        assert analysis.deviations != ablation.open("quick").plan.deviations


def tags(page: str) -> Iterator[str]:
    found: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            found.append(tag)

    Tags().feed(page)
    return iter(found)


class TestPlan:
    def test_a_plan_is_what_the_command_shows(self, place: Path) -> None:
        preview = ablation.plan(FILE, seeds=3, device="cpu")

        assert ("tiny", 12) == (preview.study.name, preview.runs)
        assert "<Preview tiny: 4 variants × 3 seeds = 12 runs>" == repr(preview)
        assert all(variant.name in preview._repr_html_() for variant in preview.variants)
        assert preview.seconds is not None
        assert preview.seconds > 0
        assert "time per run" in preview.table().head

    def test_what_is_not_timed_has_no_column_of_times(self, place: Path) -> None:
        own = {"name": "own", "training": {"name": "collections:OrderedDict", "depth": 1}}
        preview = ablation.plan({**own, "factors": {"training.depth": [1, 2]}, "metric": MAXIMIZED}, device="cpu")

        assert ("variant",) == preview.table().head
        assert [("depth=1 (baseline)",), ("depth=2",)] == list(preview.table().rows)
        assert not (place / ".ablation" / "optuna.db").exists()

    def test_a_plan_takes_its_noise_from_a_recorded_study(self, untrained: StudyResult) -> None:
        study = study_of_values(FILE)

        noise = recorded_noise("tiny", study, tracker=untrained.tracker)

        runs = untrained.tracker.recorded_runs(untrained.record)
        assert noise == {"test_accuracy": noise_of(untrained.record.plan, runs, "test_accuracy")}
        with pytest.raises(StudyUnknown):
            recorded_noise("tinny", study, tracker=untrained.tracker)
        with pytest.raises(NameUnknown, match=r"there is no metric 'churn'.*@ --noise-from tiny"):
            recorded_noise("tiny", of_own_metric("churn"), tracker=untrained.tracker)

    def test_noise_of_what_a_users_function_returns_is_in_its_own_unit_which_may_be_percent(self) -> None:
        study = of_own_metric("test_accuracy")

        noise = Noise(value=0.4).of(study)

        assert noise == {"test_accuracy": 0.4}
        (power,) = power_of(StudyLooks.of(outline_of(study), ()), noise=noise)
        lines = " ".join(power_lines([power], questions=1))
        assert power.sd == pytest.approx(0.4 * math.sqrt(2))
        assert "points" not in lines

    def test_a_study_of_one_seed_tells_no_noise(self) -> None:
        one = all_done(plan_of(study_of_values({**FILE, "seeds": 1})))

        with pytest.raises(NoiseUnknown, match="does not tell the noise of 'test_accuracy'"):
            recorded_noise("tiny", study_of_values(FILE), tracker=one.tracker)

    @pytest.mark.parametrize("noise", [-1, 0, math.nan, math.inf, "0.7", True])
    def test_noise_is_a_number_above_zero(self, noise: Any, place: Path) -> None:
        with pytest.raises(ArgumentInvalid, match="noise must be a number above 0"):
            ablation.plan(FILE, noise=noise)

    @pytest.mark.parametrize("seeds", [{"looks": (2, np.int64(3))}, {"first": 2, "last": 3}])
    def test_seeds_may_be_planned_looks(self, seeds: dict[str, Any], place: Path) -> None:
        preview = ablation.plan(FILE, seeds=seeds, device="cpu")

        assert "<Preview tiny: 4 variants × 2 to 3 seeds (looks at 2, 3) = 8 to 12 runs>" == repr(preview)


class TestVariants:
    @pytest.mark.parametrize(
        ("asked", "name"),
        [
            ("depth=3,normalization=none", "depth=3,normalization=none"),
            ({"model.depth": 3}, "depth=3,normalization=none"),
            ({"model.normalization": "batch", "model.depth": 3}, "depth=3,normalization=batch"),
            ({}, "depth=2,normalization=none"),
        ],
    )
    def test_a_variant_is_found_by_its_name_or_by_its_levels(self, asked: Any, name: str) -> None:
        assert name == variant_name(make_plan(), asked, at="variant")

    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ("depth=3,normalization=nome", "there is no variant .*; did you mean 'depth=3,normalization=none'"),
            ({"model.dept": 3}, "there is no factor 'model.dept'; did you mean 'model.depth'"),
            ({"model.depth": 9}, "no variant has the levels .*; there are: depth=2,normalization=none"),
            ({"model.depth": True}, "no variant has the levels"),
        ],
    )
    def test_a_variant_that_is_not_there_is_told_with_those_there_are(self, asked: Any, words: str) -> None:
        with pytest.raises(AblationError, match=f"{words}.* @ variant"):
            variant_name(make_plan(), asked, at="variant")

    def test_two_variants_are_compared_by_their_levels(self, untrained: StudyResult) -> None:
        compared = ablation.compare(untrained, {}, {"model.depth": 2})

        assert ("depth=1,normalization=none", "depth=2,normalization=none") == (compared.first, compared.second)


class TestModels:
    @pytest.mark.slow
    def test_a_model_answers_as_it_did_when_it_was_measured(self, place: Path) -> None:
        result = ablation.run(FILE, seeds=1, executor="inline", progress=False)
        run = result.frame().loc[lambda runs: runs["variant"] == "depth=2,normalization=batch"].iloc[0]

        before = torch.random.get_rng_state()
        model = ablation.load_model("tiny", variant={"model.depth": 2, "model.normalization": "batch"}, seed=0)

        assert torch.equal(before, torch.random.get_rng_state())
        assert not model.training
        kept = next((place / ".ablation" / "runs" / run["identity"]).rglob("test_logits.npz"))
        with torch.no_grad():
            answers = model(images_to_test(place)).numpy()
        np.testing.assert_allclose(answers, np.load(kept, allow_pickle=False)["logits"], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ({"variant": {}, "seed": True}, "has no seed True; it has 0, 1"),
            ({"variant": {}, "seed": []}, "has no seed .*; it has 0, 1"),
            ({"variant": 5, "seed": 0}, "variant must be the name of a variant, or its levels such as .*, not 5"),
            ({"variant": {}, "seed": 0, "code": 5}, "code must be a folder"),
            ({"variant": {}, "seed": 7}, "variant 'depth=1,normalization=none' has no seed 7; it has 0, 1"),
            ({"variant": "nobody", "seed": 0}, "there is no variant 'nobody'"),
        ],
    )
    def test_a_run_that_is_not_there_is_told_with_those_there_are(
        self, asked: dict[str, Any], words: str, untrained: StudyResult
    ) -> None:
        with pytest.raises(AblationError, match=words):
            ablation.load_model(untrained, **asked)

    def test_a_run_without_a_result_has_no_model(self) -> None:
        tracker = MemoryTracker()
        tracker.open_study(make_plan())

        with pytest.raises(ModelNotKept, match=r"run depth=2,normalization=none/seed-0 is not finished; .* none"):
            ablation.load_model(StudyResult.recorded("quick", tracker), variant={}, seed=0)

    def test_a_training_function_of_the_users_keeps_none(self) -> None:
        result = all_done(with_settings(make_plan(seeds=1), training=FunctionTraining(name="t.py:train")))

        with pytest.raises(ModelNotKept, match="its training function keeps its own models"):
            ablation.load_model(result, variant={}, seed=0)

    @pytest.mark.parametrize("state", [b"no tensors", b""])
    def test_a_damaged_state_is_told(self, state: bytes, untrained: StudyResult) -> None:
        keep(untrained, state)

        with pytest.raises(ModelNotKept, match=f"{MODEL_FILE} of run depth=1,normalization=none/seed-0 does not fit"):
            ablation.load_model(untrained, variant={}, seed=0)

    def test_a_state_larger_than_the_model_is_not_read(self, untrained: StudyResult) -> None:
        keep(untrained, bytes(8 * 2**20))

        with pytest.raises(ModelNotKept, match="is larger than"):
            ablation.load_model(untrained, variant={}, seed=0)

    def test_code_that_a_recorded_study_names_is_imported_only_where_it_is_trusted(
        self, own_model: StudyResult, place: Path
    ) -> None:
        (place / "elsewhere").mkdir()
        for trusted in ((), place / "elsewhere", "other.py:build", ["elsewhere", "nets:build"]):
            with pytest.raises(CodeUntrusted, match=r"made by 'nets\.py:build', which is not"):
                ablation.load_model(own_model, variant={}, seed=0, code=trusted)
        assert not (place / "imported").exists()

        for trusted in (place, [str(place)], ["elsewhere", "."]):
            assert 2 == ablation.load_model(own_model, variant={}, seed=0, code=trusted).width
        assert (place / "imported").exists()

    def test_code_that_the_run_was_not_trained_with_is_told(self, own_model: StudyResult, place: Path) -> None:
        digest = CodeFolders(folders=(place,)).digest(["nets.py:build"])
        trained = of_own_model("nets.py:build", digest=digest)
        keep(trained, own_state())
        ablation.load_model(trained, variant={}, seed=0, code=place)

        (place / "nets.py").write_text(NETS + "# edited\n")

        with pytest.warns(UserWarning, match=r"seed-0 was trained with other code than nets\.py:build is now"):
            ablation.load_model(trained, variant={}, seed=0, code=place)

    def test_a_plan_without_a_model_keeps_none(self) -> None:
        result = all_done(with_settings(make_plan(seeds=1), model=None))

        with pytest.raises(ModelNotKept, match="no model is recorded of variant 'depth=2,normalization=none'"):
            ablation.load_model(result, variant={}, seed=0)

    def test_installed_code_is_imported_where_it_is_trusted_by_its_name(self, place: Path) -> None:
        result = of_own_model("collections:OrderedDict")

        with pytest.raises(CodeUntrusted, match=r"code='collections:OrderedDict'"):
            ablation.load_model(result, variant={}, seed=0, code=place)
        with pytest.raises(CodeInvalid, match=r"returned OrderedDict, not an nn\.Module"):
            ablation.load_model(result, variant={}, seed=0, code="collections:OrderedDict")

    def test_a_path_that_leads_out_of_the_trusted_folder_is_not_trusted(self, place: Path) -> None:
        (place / "inner").mkdir()
        (place / "nets.py").write_text(NETS)
        for name in ("../nets.py:build", f"{place}/nets.py:build"):
            with pytest.raises(CodeUntrusted):
                ablation.load_model(of_own_model(name), variant={}, seed=0, code=place / "inner")
        assert not (place / "imported").exists()

    def test_a_state_that_is_a_program_is_not_run(self, untrained: StudyResult, tmp_path: Path) -> None:
        torch.save({"logits": Trap(tmp_path / "owned")}, tmp_path / "trap.pt")
        keep(untrained, (tmp_path / "trap.pt").read_bytes())

        with pytest.raises(ModelNotKept, match="does not fit"):
            ablation.load_model(untrained, variant={}, seed=0)
        assert not (tmp_path / "owned").exists()


NETS = """
from pathlib import Path
from torch import nn

Path(__file__).with_name("imported").touch()

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.width = width
        self.layer = nn.LazyLinear(10)

    def forward(self, images):
        return self.layer(images.flatten(1))

def build(width):
    return Net(width)
"""


@pytest.fixture
def own_model(place: Path) -> StudyResult:
    """A study whose model is made by nets.py in the working directory, which leaves a file when it is imported."""
    (place / "nets.py").write_text(NETS)
    result = of_own_model("nets.py:build")
    keep(result, own_state())
    return result


def own_state() -> bytes:
    state = io.BytesIO()
    torch.save({"layer.weight": torch.zeros(10, 64), "layer.bias": torch.zeros(10)}, state)
    return state.getvalue()


def of_own_model(name: str, *, digest: str | None = None) -> StudyResult:
    """Return a study whose model is made by named code, as a tracker has it: the name was never looked at."""
    plan = with_settings(make_plan(seeds=1), model=ModelSettings(name=name, arguments={"width": 2}))
    code = {variant.name: digest for variant in plan.variants} if digest is not None else {}
    return all_done(dataclasses.replace(plan, code=code))


def with_settings(plan: Plan, **sections: Any) -> Plan:
    """Return a plan whose variants have other sections in their settings."""
    variants = tuple(
        dataclasses.replace(variant, settings=dataclasses.replace(variant.settings, **sections))
        for variant in plan.variants
    )
    return dataclasses.replace(plan, variants=variants)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def images_to_test(place: Path) -> torch.Tensor:
    """Return the images that FILE's models are tested on, as they are given them."""
    from ablation.datasets import prepare
    from ablation.training.batches import evaluation_batches
    from ablation.worker.data import run_data

    settings = study_of_values(FILE).variants[0].settings.data
    folder = prepare(settings, cache=place / ".ablation" / "data").folder
    layout = torch.contiguous_format
    data, _ = run_data(folder, settings, study_seed=0, seed=0, device=torch.device("cpu"), layout=layout)
    return torch.cat(list(evaluation_batches(data.test_images, None, data)))

"""Whatever became of a plan in MLflow, it is read as a plan or refused in a sentence; no reader ends in a traceback."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import make_plan, make_runs
from mutations import mutations

from ablation.analysis import analyse, compare_variants, epoch_table, run_table
from ablation.cli.summary import analysis_text, comparison_json, comparison_text
from ablation.cli.tables import StudyStanding, status_json, status_text
from ablation.errors import AblationError
from ablation.pipeline import find_study
from ablation.records import Outcome, Plan, RunResult, TunedVariant, TuningTrial
from ablation.report import figures, report_text
from ablation.storage.holder import this_process
from ablation.study.plan_json import plan_from_json, plan_to_json
from ablation.tracking import RunDescription, StudyRecord

RATE = "training.learning_rate"


@pytest.fixture(scope="module")
def plan() -> Plan:
    made = make_plan(seeds=1, factors={"model.depth": (2, 3)})
    trial = TuningTrial(
        number=0, settings={RATE: 1e-3}, outcome="done", value=0.5, curve=(0.4, 0.5), seconds=1.0, run_ids=("a",)
    )
    tuning = [
        TunedVariant(variant=each.name, trials=(trial,), chosen=0, settings={RATE: 1e-3}) for each in made.variants
    ]
    tune = {"trials": 1, "seeds": 1, RATE: {"log": [1e-4, 1e-1]}}
    return replace(made, study={**made.study, "tune": tune}, tuning=tuple(tuning))


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no figures: they are drawn from what was analysed, and cost a second each time."""
    monkeypatch.setattr(figures, "KINDS", dict.fromkeys(figures.KINDS, lambda _analysis: ()))


def read(plan: Plan, original: Plan) -> None:
    """Do with a plan what `summarize`, `status`, `compare` and `export` do, but for drawing."""
    recorded = {run.planned.identity: run for run in make_runs(original)}
    runs = [replace(recorded[run.identity], planned=run) for run in plan.runs if run.identity in recorded]
    analysis = analyse(plan, runs)
    for form in ("markdown", "json"):
        report_text(analysis, form).encode()  # type: ignore[arg-type]
    analysis_text(analysis)
    record = StudyRecord(study_run_id="a", experiment_id="1", plan=plan, status="FINISHED")
    standing = StudyStanding(record=record, runs=tuple(runs), unrecorded=0, is_interrupted=False, gone=None)
    status_text([standing]), status_json([standing])
    comparison = compare_variants(plan, runs, *(each.name for each in original.variants))
    comparison_text(comparison), comparison_json(comparison)
    run_table(plan, runs), epoch_table(plan, runs)
    for run in plan.runs:
        RunDescription.of(run, plan)


def test_a_whole_plan_is_read(plan: Plan) -> None:
    read(plan_from_json(plan_to_json(plan)), plan)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_a_damaged_plan_is_read_or_refused_in_a_sentence(part: int, plan: Plan) -> None:
    known: set[str] = set()
    for what, document in list(mutations(json.loads(plan_to_json(plan))))[part::2]:
        read_or_refused(what, document, plan, known=known)


def test_damaged_looks_are_read_or_refused_in_a_sentence() -> None:
    made = make_plan(seeds=3, factors={"model.depth": (2, 3)})
    plan = replace(
        made,
        study={**made.study, "seeds": {"looks": [2, 3]}},
        locked=replace(made.locked, looks=(2, 3)),
        family=("depth 2 → 3",),
    )
    document = json.loads(plan_to_json(plan))
    kept = {"seeds": document["study"]["seeds"], "looks": document["locked"]["looks"], "family": document["family"]}

    for what, damaged in mutations(kept):
        study = {**document["study"], "seeds": damaged.get("seeds")}
        locked = {**document["locked"], "looks": damaged.get("looks")}
        read_or_refused(what, {**document, "study": study, "locked": locked, "family": damaged.get("family")}, plan)


def read_or_refused(what: str, document: Any, plan: Plan, *, known: set[str] | None = None) -> None:
    """Read a damaged plan, unless it came to a known one: then all that reads it has read it."""
    try:
        damaged = plan_from_json(json.dumps(document))
    except ValueError:
        return
    if known is not None:
        if (text := repr(damaged)) in known:
            return
        known.add(text)
    try:
        read(damaged, plan)
    except AblationError:
        return
    except Exception as error:
        error.add_note(f"where {what}")
        raise


@pytest.mark.parametrize("length", [0, 1, 10, 1000, -1, -2])
def test_a_truncated_plan_is_refused(length: int, plan: Plan) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|Extra data|delimiter"):
        plan_from_json(plan_to_json(plan).strip()[:length])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"alpha": 5}, "not a plan: its alpha is 5.0, which is not between 0 and 1"),
        ({"alpha": None}, "not a plan: Input should be a valid number @ locked.alpha"),
        ({"questions": [{"effect": 3}]}, "not a plan: Input should be a valid string @ locked.questions.0.effect"),
        ({"metric": {}}, "not a plan: Field required @ locked.metric.name (and 1 more)"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said(change: dict[str, Any], said: str, plan: Plan) -> None:
    document = json.loads(plan_to_json(plan))
    document["locked"] |= change

    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        plan_from_json(json.dumps(document))


def test_a_design_of_a_later_version_is_named(plan: Plan) -> None:
    document = json.loads(plan_to_json(plan))
    document["study"]["design"] = "nested"

    with pytest.raises(ValueError, match="has the design 'nested', which this version of ablation does not know"):
        plan_from_json(json.dumps(document))


ODD = ["", "\n", "9" * 400, "[]", '{"pid": "x"}', "[" * 5000]


@pytest.mark.slow
def test_whatever_the_tags_of_a_study_hold_is_read(mlflow_tracker: Any, tmp_path: Path) -> None:
    made = make_plan(seeds=1, factors={"model.depth": (2, 3)})
    record = mlflow_tracker.open_study(made, holder=this_process(nonce="n"))
    for planned, outcome in zip(made.runs, (Outcome.DONE, Outcome.FAILED), strict=True):
        run_id = mlflow_tracker.start_run(record, planned, {"device": "cpu"}, attempt="a")
        error = "lost" if outcome is Outcome.FAILED else None
        metrics = {"test_accuracy": 0.5} if outcome is Outcome.DONE else {}
        result = RunResult(identity=planned.identity, outcome=outcome, metrics=metrics, epochs=1, error=error)
        mlflow_tracker.finish_run(run_id, result, None)
    client, known = mlflow_tracker.store.client, set[str]()

    for run in client.search_runs([record.experiment_id]):
        for name, value in run.data.tags.items():
            if name == "mlflow.runName":
                continue
            for odd in ODD:
                client.set_tag(run.info.run_id, name, odd)
                look(mlflow_tracker, f"{name} is {odd[:20]!a}", known)
            client.set_tag(run.info.run_id, name, value)
    assert record == replace(find_study("quick", tracker=mlflow_tracker), status="RUNNING")


def look(tracker: Any, what: str, known: set[str]) -> None:
    """Read a study as `status` and `summarize` do, but for drawing; what is known was shown before."""
    try:
        record = find_study("quick", tracker=tracker)
        runs = tracker.recorded_runs(record)
        holder, left_out = tracker.holder(record.study_run_id), tracker.left_out(record)
        if (found := repr((record, runs, holder, left_out))) in known:
            return
        known.add(found)
        status_text([StudyStanding(record=record, runs=runs, unrecorded=0, is_interrupted=True, gone=holder)])
        report_text(analyse(record.plan, runs, left_out=left_out), "markdown")
    except AblationError:
        return
    except Exception as error:
        error.add_note(f"where {what}")
        raise


@pytest.mark.parametrize("form", ["markdown", "json", "latex", "latex-wide"])
def test_a_text_that_is_not_unicode_is_written_all_the_same(form: Any) -> None:
    odd, made = "x\udce9", make_plan(seeds=2, description="x\udce9")
    runs = make_runs(made, outcomes={(made.runs[0].variant, 0): Outcome.FAILED})
    odd_runs = [
        replace(run, host=odd, device=odd, commit=odd, error=odd, problems=(odd,), versions={odd: odd}, run_id=odd)
        for run in runs
    ]

    assert report_text(analyse(made, odd_runs), form).encode()

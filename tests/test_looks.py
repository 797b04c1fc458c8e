"""Studies with planned looks, whole: which runs they ask for, wherever they are interrupted, and what is said of it."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from factories import make_plan, make_runs

from ablation.analysis import RuleChange, StudyLooks, Verdict, analyse
from ablation.analysis.sequential import State
from ablation.cli.tables import StudyStanding, status_json, status_text
from ablation.coordinator.looks import confusion_at_chance
from ablation.executors import InlineExecutor
from ablation.pipeline import summarize_study
from ablation.records import Outcome, RunEvaluation, RunResult
from ablation.report.prose import overview, sentence
from ablation.storage.run_folder import RunFolder
from ablation.study import Study, load_study
from ablation.study.plan_json import plan_from_json, plan_to_json

CODE = """
import random


def train(settings, seed, report):
    gain = settings["training"]["gain"]
    noise = random.Random(f"{seed} {gain}").gauss(0, 0.01)
    if gain == settings["training"]["broken"] and seed % 3 == 0:
        raise RuntimeError("broken")
    return {"score": EFFECTS[gain] + noise}


EFFECTS = {0: 0.5, 1: 0.6, 2: 0.5, 3: 0.522}
"""
FILE = """
name: looks
training: {name: "loop.py:train", gain: 0, broken: -1}
factors: {training.gain: [0, 1, 2, 3]}
seeds: {looks: [3, 5, 8, 12]}
metric: {name: score, direction: maximize, meaningful: 0.008}
"""


def study_in(folder: Path, **changes: str) -> Study:
    (folder / "loop.py").write_text(CODE)
    text = FILE
    for old, new in changes.items():
        assert f"{old}: " in text
        text = text.replace(f"{old}: ", f"{old}: {new} # ", 1)
    (folder / "study.yaml").write_text(text)
    return load_study(folder / "study.yaml")


def looks_of(bench: Bench) -> StudyLooks:
    record = bench.tracker.find_study("looks")
    assert record is not None
    return StudyLooks.of(record.plan, bench.tracker.recorded_runs(record))


def seeds_by_variant(bench: Bench) -> Counter[str]:
    return Counter(run.variant for run in bench.trained)


def test_seeds_are_bought_for_open_comparisons_alone(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run(study_in(tmp_path))

    assert outcome.analysis is not None
    first, second, third = outcome.analysis.answers
    bought = {answer.changes[0].after: answer.look.seeds for answer in (first, second, third)}
    assert (Verdict.HELPS, "different") == (first.verdict, first.look.state)
    assert bought[1] < max(bought.values())  # what was decided early has no more seeds than its look
    assert {f"gain={gain}": seeds for gain, seeds in bought.items()} | {
        "gain=0": max(bought.values())
    } == seeds_by_variant(bench)
    assert {Outcome.DONE: sum(seeds_by_variant(bench).values())} == outcome.ended
    assert "FINISHED" == outcome.record.status or "FINISHED" == bench.tracker.find_study("looks").status


def test_the_same_command_again_trains_nothing(bench: Bench, tmp_path: Path) -> None:
    first = bench.run(study_in(tmp_path))

    again = bench.run(study_in(tmp_path))

    assert [] == bench.trained
    assert first.analysis == again.analysis


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 7, 12, 13, 15, 20])
def test_wherever_it_is_interrupted_the_same_runs_and_verdicts_come_out(
    bench: Bench, tmp_path: Path, after: int
) -> None:
    undisturbed = Bench(tmp_path / "other", tmp_path)
    expected = undisturbed.run(study_in(tmp_path)).analysis
    steps = bench.steps(study_in(tmp_path))
    for progress in steps:
        if sum(progress.ended.values()) >= after:
            break
    steps.close()

    found = bench.run(study_in(tmp_path)).analysis

    assert expected is not None
    assert found is not None
    assert expected.planned_runs == found.planned_runs
    assert [answer.look for answer in expected.answers] == [answer.look for answer in found.answers]
    assert [(answer.verdict, answer.effect) for answer in expected.answers] == [
        (answer.verdict, answer.effect) for answer in found.answers
    ]


class Turned(InlineExecutor):
    """Has three slots, and ends what it is given in another order than it was given."""

    def __init__(self) -> None:
        super().__init__(device="cpu")
        self.slots = ("cpu",) * 3


@pytest.mark.slow
def test_more_slots_change_no_verdict_and_buy_no_other_run(bench: Bench, tmp_path: Path) -> None:
    undisturbed = Bench(tmp_path / "other", tmp_path)
    expected = undisturbed.run(study_in(tmp_path)).analysis
    bench.executor = Turned()

    found = bench.run(study_in(tmp_path)).analysis

    assert expected is not None
    assert found is not None
    assert [answer.look for answer in expected.answers] == [answer.look for answer in found.answers]
    assert sorted(run.name for run in undisturbed.trained) == sorted(run.name for run in bench.trained)


def test_a_failed_run_pauses_its_comparisons_and_no_other(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run(study_in(tmp_path, training='{name: "loop.py:train", gain: 0, broken: 2}'))

    assert outcome.analysis is not None
    first, second, third = outcome.analysis.answers
    assert (Verdict.HELPS, Verdict.INCOMPLETE) == (first.verdict, second.verdict)
    assert State.PAUSED == second.look.state
    assert {"gain=2"} == {run.variant for run in second.missing}
    assert third.look.number > second.look.number
    assert bench.tracker.find_study("looks").status == "FAILED"


@pytest.mark.slow
def test_seeds_beyond_the_plan_go_to_what_it_left_open_and_leave_its_verdicts(bench: Bench, tmp_path: Path) -> None:
    planned = bench.run(study_in(tmp_path, seeds="{looks: [3, 5]}")).analysis

    grown = bench.run(study_in(tmp_path, seeds="{looks: [3, 5, 14]}")).analysis

    assert planned is not None
    assert grown is not None
    decided = [answer for answer in planned.answers if answer.verdict.is_decided]
    assert decided
    for before, after in zip(planned.answers, grown.answers, strict=True):
        assert after.is_grown is not before.verdict.is_decided
        if before.verdict.is_decided:
            assert (before.verdict, before.effect) == (after.verdict, after.effect)
        else:
            assert after.look.seeds == 14
    assert {answer.changes[0].after for answer in decided}.isdisjoint(
        int(run.variant.partition("=")[2]) for run in bench.trained
    )
    assert "seeds changed from looks at 3, 5 to looks at 3, 5, 14" in grown.deviations[0]


def test_status_says_where_the_looks_stand(bench: Bench, tmp_path: Path) -> None:
    steps = bench.steps(study_in(tmp_path))
    said = [progress.look for progress in steps if progress.look is not None]
    looks = looks_of(bench)
    record = bench.tracker.find_study("looks")
    assert record is not None
    standing = StudyStanding(record=record, runs=looks.recorded_runs, unrecorded=0, look=looks.text)

    assert "look 0 of 4: 3 open, 0 decided" == said[0]
    assert looks.text == said[-1]
    assert f"looks: finished; {len(looks.runs)} done" in status_text([standing])
    assert f"\n  {looks.text}\n" in f"{status_text([standing])}\n"
    [written] = json.loads(status_json([standing]))
    assert (looks.text, 0) == (written["look"], written["to_do"])


def test_the_report_says_at_which_look_and_what_was_saved(bench: Bench, tmp_path: Path) -> None:
    outcome = bench.run(study_in(tmp_path))

    assert outcome.report is not None
    assert outcome.analysis is not None
    text = (outcome.report / "report.md").read_text()
    asked, most = outcome.analysis.planned_runs, outcome.analysis.most_runs
    assert asked < most == 48
    assert f"So far {asked} of at most 48 runs were needed." in text
    assert f"Decided at look {outcome.analysis.answers[0].look.number} of 4" in text


@pytest.mark.slow
def test_mlflow_has_the_look_of_each_run_and_of_the_study(
    bench: Bench, tmp_path: Path, mlflow_tracker: Any, mlflow_client: Any
) -> None:
    bench.tracker = mlflow_tracker
    bench.run(study_in(tmp_path))
    record = mlflow_tracker.find_study("looks")
    looks = looks_of(bench)

    runs = mlflow_client.search_runs([record.experiment_id], "tags.`ablation.kind` = 'run'")
    study_run = mlflow_client.get_run(record.study_run_id)
    found = {(int(run.data.tags["ablation.seed"]), int(run.data.tags["ablation.look"])) for run in runs}
    assert found <= {(seed, 1 + sum(seed >= n for n in (3, 5, 8, 12))) for seed in range(12)}
    assert f"{looks.look} of 4" == study_run.data.tags["ablation.look"]


def test_a_study_that_ends_before_a_planned_look_announces_no_such_look(bench: Bench, tmp_path: Path) -> None:
    steps = bench.steps(study_in(tmp_path))
    next(progress for progress in steps if sum(progress.ended.values()) >= 13)
    steps.close()

    outcome = bench.run(study_in(tmp_path, seeds="5"))

    assert outcome.analysis is not None
    still = [answer for answer in outcome.analysis.answers if answer.look.state == State.OPEN]
    assert still
    for answer in still:
        assert answer.look.next is None
        assert "The seeds that would judge it next are not asked for, so it stays open." in sentence(answer)
        assert "Next:" not in sentence(answer)


@pytest.mark.slow
def test_growth_under_way_leaves_the_look_and_says_which_seeds_come_next(bench: Bench, tmp_path: Path) -> None:
    bench.run(study_in(tmp_path))
    before = looks_of(bench)
    stopped = [index for index, each in enumerate(before.standings) if each.state is State.FUTILE]
    steps = bench.steps(study_in(tmp_path, seeds="20"))
    next(progress for progress in steps if progress.latest is not None)
    steps.close()

    looks = looks_of(bench)
    record = bench.tracker.find_study("looks")
    assert record is not None
    answers = analyse(record.plan, bench.tracker.recorded_runs(record)).answers

    assert stopped
    assert before.look == looks.look
    grown = bench.run(study_in(tmp_path, seeds="20")).analysis
    assert grown is not None
    assert before.look == grown.look == looks_of(bench).look
    for index in stopped:
        at = before.standings[index].seeds
        said = sentence(answers[index])
        assert (State.OPEN, at, 20) == (answers[index].look.state, answers[index].look.seeds, answers[index].look.next)
        assert f"Judged last at look {answers[index].look.number} of 4, {at} seeds." in said
        chance = r"which decide it with a chance (of \d+|below 1) %"
        assert re.search(rf"Next: 20 seeds, beyond the plan, {chance}; the same command resumes\.", said)


def test_one_look_that_was_grown_says_how_many_runs_were_needed_and_names_no_looks(
    bench: Bench, tmp_path: Path
) -> None:
    bench.run(study_in(tmp_path, seeds="5"))

    analysis = bench.run(study_in(tmp_path, seeds="8")).analysis

    assert analysis is not None
    assert f"So far {analysis.planned_runs} of at most 32 runs were needed." in overview(analysis)[3]
    assert not any(" look " in sentence(answer) for answer in analysis.answers)


@pytest.mark.slow
def test_a_difference_that_few_seeds_find_is_told_where_t_alone_judges_them(bench: Bench, tmp_path: Path) -> None:
    """An early look takes far more than the alpha it holds; luck and an e-value are judged by no t test."""
    planned = bench.run(study_in(tmp_path, seeds="{looks: [3, 12]}")).analysis
    alone = Bench(tmp_path / "alone", tmp_path)
    few = alone.run(study_in(tmp_path, factors="{training.gain: [0, 1]}", seeds="3")).analysis
    grown = alone.run(study_in(tmp_path, factors="{training.gain: [0, 1]}", seeds="4")).analysis

    assert planned is not None
    early = [answer.effect for answer in planned.answers if answer.look.seeds == 3]
    assert early
    for effect in early:
        assert effect is not None
        assert effect.interval is not None
        assert effect.detectable is not None
        assert effect.detectable > (effect.interval.high - effect.interval.low) / 2
    for analysis in (few, grown):
        assert analysis is not None
        (answer,) = analysis.answers
        assert answer.look.is_fragile
        assert answer.effect is not None
        assert answer.effect.detectable is None
        assert "Fragile" in sentence(answer)
        assert "it could be nothing" not in sentence(answer)
        assert "is found in 80 %" not in sentence(answer)


def test_another_rule_judges_the_runs_that_were_asked_for_and_asks_for_none(bench: Bench, tmp_path: Path) -> None:
    asked = bench.run(study_in(tmp_path)).analysis

    _, judged = summarize_study("looks", tracker=bench.tracker, change=RuleChange(alpha=0.0001))

    assert asked is not None
    assert (asked.planned_runs, asked.most_runs) == (judged.planned_runs, judged.most_runs)
    assert not judged.diagnostics.missing
    still = [answer for answer in judged.answers if answer.look.state == State.OPEN]
    assert still
    for answer in still:
        assert answer.look.next is None
        assert "Next:" not in sentence(answer)


@pytest.mark.parametrize("seeds", ["3", "{looks: [3, 5]}"])
def test_before_its_first_look_a_comparison_has_no_interval(bench: Bench, tmp_path: Path, seeds: str) -> None:
    steps = bench.steps(study_in(tmp_path, seeds=seeds))
    next(progress for progress in steps if sum(progress.ended.values()) >= 11)
    steps.close()

    _, analysis = summarize_study("looks", tracker=bench.tracker)

    ready = [answer for answer in analysis.answers if not answer.missing]
    assert ready
    for answer in ready:
        said = sentence(answer)
        assert (Verdict.UNDECIDED, 0) == (answer.verdict, answer.look.seeds)
        assert answer.effect is not None
        assert answer.effect.interval is None
        assert "There is no interval yet: comparisons are judged together, first with 3 seeds." in said
        assert "Next: the look at 3 seeds; the same command resumes." in said


@pytest.mark.slow
def test_what_was_added_is_said_with_its_own_error_rate(reporting_bench: Bench, tmp_path: Path) -> None:
    planned = reporting_bench.run(study_in(tmp_path, factors="{training.gain: [0, 1]}"))
    grown = reporting_bench.run(study_in(tmp_path))

    assert planned.analysis is not None
    assert grown.analysis is not None
    assert grown.report is not None
    text = (grown.report / "report.md").read_text()
    assert "(family-wise error rate 5 %)" in overview(planned.analysis)[1]
    assert "(family-wise error rate at most 6 %)" in overview(grown.analysis)[1]
    assert "at most 6 %: 5 % as planned, 1 % for what was added" in text
    assert "The verdicts together are wrong at most 6 % of the time." in text


def test_questions_left_out_after_results_leave_the_share_of_what_is_added(bench: Bench, tmp_path: Path) -> None:
    both = "factors: {training.gain: [0, 1], training.broken: [-1, -2]}\nx-"
    asked = "seeds: 3\nquestions: [{effect: training.gain}, {effect: training.broken}]\n"
    fewer = "seeds: 3\nquestions: [{effect: training.gain}]\n"
    found = []
    for questions in (asked, fewer):
        study_in(tmp_path)
        text = FILE.replace("factors: {training.gain: [0, 1, 2, 3]}\n", both.removesuffix("x-"))
        text = text.replace("seeds: {looks: [3, 5, 8, 12]}\n", questions)
        (tmp_path / "study.yaml").write_text(text)
        found.append(bench.run(load_study(tmp_path / "study.yaml")).analysis)

    before, after = found
    assert before is not None
    assert after is not None
    assert before.answers[0].decisive_e_value == after.answers[0].decisive_e_value


@pytest.mark.parametrize(("accuracy", "is_at_chance"), [(0.3, True), (0.31, False)])
def test_while_a_study_runs_what_a_run_at_chance_answered_is_read_from_its_folder(
    tmp_path: Path, accuracy: float, is_at_chance: bool
) -> None:
    plan = make_plan()
    run = make_runs(plan, accuracy=lambda *_: accuracy)[0]
    folder = RunFolder(path=tmp_path)
    folder.artifacts.mkdir()
    evaluation = RunEvaluation(confusion=run.confusion, test_correct=run.test_correct)
    (folder.artifacts / "evaluation.json").write_text(json.dumps(evaluation.to_json()))
    result = RunResult(identity=run.planned.identity, outcome=Outcome.DONE, metrics=run.metrics, epochs=4)

    assert (run.confusion if is_at_chance else {}) == confusion_at_chance(plan, run.planned.variant, result, folder)


def test_questions_left_out_after_results_stay_in_the_locked_family(bench: Bench, tmp_path: Path) -> None:
    factors = "factors: {training.gain: [0, 1], training.broken: [-1, -2]}\n"
    gain, broken = "{effect: training.gain}", "{effect: training.broken}"
    plans, alphas = [], []
    for questions in (f"{gain}, {broken}", gain, f"{gain}, {broken}"):
        study_in(tmp_path)
        text = FILE.replace("factors: {training.gain: [0, 1, 2, 3]}\n", factors)
        text = text.replace("seeds: {looks: [3, 5, 8, 12]}\n", f"seeds: 3\nquestions: [{questions}]\n")
        (tmp_path / "study.yaml").write_text(text)
        outcome = bench.run(load_study(tmp_path / "study.yaml"))
        assert outcome.analysis is not None
        plans.append(outcome.record.plan)
        alphas.append([answer.look.alpha for answer in outcome.analysis.answers][:1])

    locked, fewer, again = plans
    assert [(), ("training.broken",), ()] == [tuple(question.effect for question in each.dropped) for each in plans]
    assert fewer == plan_from_json(plan_to_json(fewer))
    assert "asked no more: training.broken: -1 → -2, after 12 results could be seen" in fewer.deviations[-1]
    assert locked.family == fewer.family == again.family
    assert alphas[0] == alphas[2]
    assert alphas[1] <= alphas[0]

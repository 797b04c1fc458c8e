"""Whatever a study's design, its looks ask for runs until nothing is left to be decided, in one way alone."""

import json
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from factories import make_runs, plan_of

from ablation.analysis import StudyLooks, analyse
from ablation.analysis.sequential import State
from ablation.coordinator.looks import LooksUnderWay
from ablation.records import Plan, PlannedRun, RecordedRun, Variant
from ablation.study import parse_study

PARTS = {
    "norm": {"remove": ["*.norm*"]},
    "second": {"remove": ["blocks.block2"]},
    "third": {"remove": ["blocks.block3"]},
}
LEVELS = {"model.depth": [2, 3, 4], "model.normalization": ["none", "batch"]}
STUDIES: dict[str, dict[str, Any]] = {
    "factorial": {"factors": LEVELS},
    "forbid": {"factors": LEVELS, "forbid": [{"model.depth": 4, "model.normalization": "batch"}]},
    "interaction": {
        "factors": LEVELS,
        "questions": [{"effect": "model.depth"}, {"interaction": ["model.depth", "model.normalization"]}],
    },
    "one-at-a-time": {"factors": LEVELS, "design": "one-at-a-time"},
    "parts": {"factors": PARTS, "design": "leave-one-out+add-one"},
    "listed": {
        "factors": LEVELS,
        "design": "listed",
        "variants": {"deep": {"model.depth": 4}, "normal": {"model.normalization": "batch"}},
    },
    "at": {
        "factors": LEVELS,
        "questions": [{"effect": "model.normalization", "at": {"model.depth": 2}}, {"effect": "model.depth"}],
    },
}


def plan(name: str) -> Plan:
    values = {
        "name": "designed",
        "data": {"name": "digits"},
        "model": {"name": "cnn", "depth": 3 if name == "parts" else 2, "normalization": "none"},
        "seeds": {"looks": [3, 5, 8, 12]},
        **STUDIES[name],
    }
    return plan_of(parse_study(json.dumps(values).encode(), source="designed.yaml"))


def runs_of(made: Plan) -> dict[str, RecordedRun]:
    """Record every run of a plan: some variants much better, some as good as the baseline."""

    def accuracy(variant: Variant, seed: int) -> float:
        index = made.variants.index(variant)
        return 0.7 + 0.02 * (index % 3) + 0.01 * float(np.random.default_rng([index, seed]).standard_normal())

    return {run.planned.identity: run for run in make_runs(made, accuracy=accuracy)}


def asked_by(made: Plan, runs: dict[str, RecordedRun], *, order: random.Random) -> Iterator[PlannedRun]:
    """Yield the runs that a study asks for, each ending in a random order."""
    looks = LooksUnderWay(made, [])
    waiting = list(looks.runs)
    while waiting:
        run = waiting.pop(order.randrange(len(waiting)))
        yield run
        waiting += looks.add(runs[run.identity])
    assert looks.text is not None
    assert " 0 open" in looks.text


@pytest.mark.parametrize("name", STUDIES)
def test_every_design_asks_for_the_same_runs_in_whatever_order_they_end(name: str) -> None:
    made = plan(name)
    runs = runs_of(made)

    asked = [{run.identity for run in asked_by(made, runs, order=random.Random(seed))} for seed in range(4)]

    assert all(one == asked[0] for one in asked)
    assert len(asked[0]) < len(made.runs)
    first = {run.identity for run in made.runs if run.seed < 3}
    assert first < asked[0]


@pytest.mark.parametrize("name", STUDIES)
def test_new_seeds_go_to_the_variants_of_open_comparisons_alone(name: str) -> None:
    made = plan(name)
    runs = runs_of(made)
    asked = {run.identity for run in asked_by(made, runs, order=random.Random(1))}
    looks = StudyLooks(plan=made, recorded={identity: runs[identity] for identity in asked})

    assert all(standing.state is not State.OPEN for standing in looks.standings)
    for variant in made.variants:
        needed = [
            standing.seeds
            for contrast, standing in zip(looks.contrasts, looks.standings, strict=True)
            if variant.name in contrast.weights
        ]
        bought = sum(run.variant == variant.name for run in looks.runs)
        assert bought == max([3, *needed])


@pytest.mark.parametrize("name", STUDIES)
def test_a_report_between_looks_shows_the_last_complete_one(name: str) -> None:
    made = plan(name)
    runs = runs_of(made)
    asked = [run.identity for run in asked_by(made, runs, order=random.Random(2))]
    whole = analyse(made, [runs[identity] for identity in asked])
    for count in (len(asked) // 3, len(asked) // 2, len(asked) - 1):
        part = analyse(made, [runs[identity] for identity in asked[:count]])
        for before, after in zip(part.answers, whole.answers, strict=True):
            assert before.look.seeds in (0, 3, 5, 8, 12)
            if before.verdict.is_decided:
                assert (before.verdict, before.effect) == (after.verdict, after.effect)

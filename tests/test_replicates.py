"""What a study repeats its variants over: seed indices, and in which order they are judged."""

from typing import Any

import pytest
from test_locking import ended, locked, study

from ablation.errors import StudyFileError, StudyNarrowed
from ablation.study.identity import locked_hash
from ablation.study.plan_json import plan_from_json, plan_to_json


def seeds_of(seeds: Any) -> list[int]:
    return list(dict.fromkeys(run.seed for run in study(seeds).runs(data_digest="d")))


def problem_of(**changes: Any) -> str:
    with pytest.raises(StudyFileError) as caught:
        study(**changes)
    return str(caught.value)


def test_seed_indices_are_trained_in_their_order_and_judged_at_one_look() -> None:
    found = study([42, 0, 7])

    assert [42, 0, 7] == seeds_of([42, 0, 7])
    assert (3,) == found.spec.looks == found.locked().schedule
    assert (42, 0, 7) == found.locked().order


def test_a_seed_is_the_same_run_however_it_is_named() -> None:
    by_number = {(run.variant, run.seed): run.identity for run in study(3).runs(data_digest="d")}
    by_index = {(run.variant, run.seed): run.identity for run in study([2, 9]).runs(data_digest="d")}

    assert {key: identity for key, identity in by_number.items() if key[1] == 2}.items() <= by_index.items()


def test_the_first_seeds_in_order_are_the_number_that_means_the_same() -> None:
    assert 3 == study([0, 1, 2]).spec.document()["seeds"]
    assert locked_hash(study(3).locked()) == locked_hash(study([0, 1, 2]).locked())
    assert locked_hash(study(3).locked()) != locked_hash(study([0, 2, 1]).locked())


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([], "needs at least one seed index, such as [0, 1, 42] @ seeds"),
        ([0, 1, 0], "has seed 0 twice; the same seed trains the same run, so name each once @ seeds"),
        (
            [0, -1],
            "must be a seed index, a whole number from 0 to 999999 (those above are for tuning), not -1 @ seeds[1]",
        ),
        (
            [True],
            "must be a seed index, a whole number from 0 to 999999 (those above are for tuning), not true @ seeds[0]",
        ),
        ([1_000_000], "(those above are for tuning), not 1000000 @ seeds[0]"),
        (
            [1.0],
            "must be a seed index, a whole number from 0 to 999999 (those above are for tuning), not 1.0 @ seeds[0]",
        ),
    ],
)
def test_what_is_no_list_of_seed_indices_is_refused(seeds: Any, said: str) -> None:
    assert said in problem_of(seeds=seeds)


def test_seeds_that_are_added_come_after_the_locked_ones_wherever_the_file_has_them() -> None:
    plan = locked(ended(3, trained=3), [42, 2, 1, 0])

    assert (0, 1, 2, 42) == plan.seeds
    assert (3, (0, 1, 2)) == (plan.locked.seeds, plan.locked.order)
    assert ("seeds changed from 3 to [42, 2, 1, 0], after 6 results could be seen",) == plan.deviations


def test_a_locked_seed_is_not_put_in_anothers_place() -> None:
    tracker = ended([0, 5, 9], trained=1)

    with pytest.raises(StudyNarrowed, match="seed-9"):
        locked(tracker, [0, 5, 7])
    with pytest.raises(StudyNarrowed, match="seed-5"):
        locked(tracker, [0, 9])
    assert (0, 5) == locked(tracker, [0, 5]).seeds


def test_a_plan_of_seed_indices_comes_back_as_it_was() -> None:
    plan = locked(ended([0, 5, 9], trained=1), [9, 5, 0, 4])

    found = plan_from_json(plan_to_json(plan))

    assert plan.locked == found.locked
    assert (0, 5, 9, 4) == found.seeds

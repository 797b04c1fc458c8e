"""Plans that the version before typed records wrote, in tests/plans, are read and written back byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest

from ablation.study import locked_hash
from ablation.study.plan_json import plan_from_json, plan_to_json

PLANS = sorted((Path(__file__).parent / "plans").glob("*.json"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_plan_of_the_version_before_is_written_back_byte_for_byte(path: Path) -> None:
    text = path.read_text()

    assert text == plan_to_json(plan_from_json(text))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_what_a_plan_locked_has_the_hash_that_it_was_written_with(path: Path) -> None:
    plan = plan_from_json(path.read_text())

    assert plan.locked_hash == locked_hash(plan.locked)
    assert json.loads(path.read_text())["locked"] == plan.locked.plain()


def test_what_is_wrong_with_a_variants_settings_is_said_with_its_path() -> None:
    document = json.loads(PLANS[0].read_text())
    document["variants"][1]["settings"]["data"]["limit"] = "all"

    with pytest.raises(ValueError, match=r"^not a plan: cannot be 'all' @ variants\.1\.settings\.data\.limit$"):
        plan_from_json(json.dumps(document))


def test_a_question_of_a_version_without_listed_variants_is_read() -> None:
    document: dict[str, Any] = json.loads(PLANS[0].read_text())
    for question in document["locked"]["questions"]:
        assert not {"variant", "at"} & question.keys()
        del question["meaningful"], question["on"]

    (question,) = plan_from_json(json.dumps(document)).locked.questions

    assert ("training.rate",) == question.factors
    assert (None, {}, None, None) == (question.variant, question.at, question.on, question.meaningful)

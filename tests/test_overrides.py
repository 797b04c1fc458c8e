"""Changes from the command line: what they set, what they name the study, and where a mistake in one is told."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.errors import StudyFileError
from ablation.study import Override, Study, parse_override, parse_study, read_value
from ablation.study.looks import SEEDS_FORM

QUICK = b"""\
name: quick
data: {name: digits, validation: none}
model: {name: cnn, depth: 2, width: 8, normalization: none}
training: {epochs: 5, learning_rate: 1e-3}
factors:
  model.depth: [2, 3]
  model.normalization: [none, batch]
seeds: 5
questions:
  - effect: model.depth
  - interaction: [model.depth, model.normalization]
"""


def quick(*changes: str, levels: Mapping[str, Sequence[Any]] | None = None, name: str | None = None) -> Study:
    overrides = [parse_override(change) for change in changes]
    return parse_study(QUICK, source="quick.yaml", overrides=overrides, levels=levels, name=name)


def errors(*changes: str, levels: Mapping[str, Sequence[Any]] | None = None) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        quick(*changes, levels=levels)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        (["training.epochs=1"], "quick+training.epochs=1"),
        (["training.epochs=1", "model.width=4"], "quick+model.width=4+training.epochs=1"),
        (["model.width=4", "training.epochs=1"], "quick+model.width=4+training.epochs=1"),
        (["training.learning_rate=1e-5"], "quick+training.learning_rate=1e-05"),
        (["model.dense=[64, 32]"], "quick+model.dense=64-32"),
        (["model.dense=[]"], "quick+model.dense=empty"),
        (["data.validation=0.2"], "quick+data.validation=0.2"),
        (["data.limit=100"], "quick+data.limit=100"),
        (["data={name: images, root: photos}"], "quick+data.name=images+data.validation=0.1"),
        (["data.name=images", "data.root=/photos"], "quick+data.name=images"),
        (["study_seed=1"], "quick+study_seed=1"),
        (["metric.meaningful=0.01"], "quick+metric.meaningful=0.01"),
        (["metric.name=test_loss"], "quick+metric.direction=minimize+metric.meaningful=null+metric.name=test_loss"),
    ],
)
def test_a_change_of_the_fixed_part_makes_a_study_of_its_own(changes: list[str], name: str) -> None:
    assert quick(*changes).name == name


@pytest.mark.parametrize(
    "changes",
    [
        ["seeds=3"],
        ["factors.model.depth=[2, 3, 4]"],
        ["factors.model.width=[8, 16]"],
        ["questions=[{effect: model.depth}]"],
        ["questions[0].on=test_loss"],
        ["alpha=0.1"],
        ["collapse_margin=0"],
        ["description=other words"],
        ["design=factorial"],
    ],
)
def test_a_change_of_what_may_grow_keeps_the_name(changes: list[str]) -> None:
    assert quick(*changes).name == "quick"


@pytest.mark.parametrize(
    "changes",
    [
        ["training.epochs=5"],
        ["training.learning_rate=0.001"],
        ["model.width=8", "model={name: cnn, depth: 2, width: 8}"],
        ["data.augmentation=none"],
        ["metric={name: test_accuracy}"],
        ["study_seed=0"],
        ["training.epochs=1", "training.epochs=5"],
    ],
)
def test_an_override_with_the_files_own_value_changes_nothing(changes: list[str]) -> None:
    assert quick(*changes) == quick()


@pytest.mark.parametrize("change", ["model.normalization_placement=after", "training.momentum=0.5", "model.groups=4"])
def test_a_setting_without_effect_on_the_baseline_renames_nothing(change: str) -> None:
    assert quick(change).name == "quick"


def test_a_setting_that_only_comes_into_effect_is_not_in_the_name() -> None:
    assert quick("training.optimizer=sgd").name == "quick+training.optimizer=sgd"


def test_taking_a_limit_away_makes_a_study_of_its_own() -> None:
    limited = QUICK.replace(b"validation: none", b"limit: 100")

    study = parse_study(limited, source="f", overrides=[Override(path="data.limit", value=None)])

    assert study.name == "quick+data.limit=null"


def test_name_wins_over_the_name_that_overrides_make() -> None:
    assert quick("training.epochs=1", name="mine").name == "mine"
    assert quick("training.epochs=1", "name=mine").name == "mine"
    assert quick("name=theirs", name="mine").name == "mine"


def test_many_overrides_make_a_name_that_is_short_enough_and_their_own() -> None:
    changes = [f"training.{key}" for key in ("epochs=1", "batch_size=2", "optimizer=sgd", "schedule=cosine")]
    changes += [f"model.{key}" for key in ("width=4", "kernel=5", "dense=[8, 8, 8, 8, 8, 8, 8, 8]", "activation=gelu")]
    changes += ["data.augmentation=crop-flip", "data.validation=0.25", "training.weight_decay=0.001"]

    names = {quick(*changes, f"training.momentum={momentum}").name for momentum in (0.1, 0.2)}

    assert len(names) == 2
    assert all(len(name) == 200 for name in names)


@pytest.mark.parametrize(
    ("line", "change", "name"),
    [
        (b"data: {name: images, root: here, size: 64}", "data.size=null", "quick+data.size=null"),
        (b"training: {precision: bf16}", "training.precision=fp32", "quick+training.precision=fp32"),
    ],
)
def test_a_default_that_stands_in_no_identity_makes_a_study_of_its_own_too(line: bytes, change: str, name: str) -> None:
    key = line.partition(b":")[0] + b":"
    content = b"\n".join(line if text.startswith(key) else text for text in QUICK.split(b"\n"))

    assert name == parse_study(content, source="f", overrides=[parse_override(change)]).name


def test_where_the_data_is_kept_is_in_neither_name_nor_identity() -> None:
    images = QUICK.replace(b"name: digits", b"name: images, root: here")
    here = parse_study(images, source="f")
    there = parse_study(images, source="f", overrides=[Override(path="data.root", value="/there")])

    assert there.name == here.name
    assert there.runs(data_digest="d") == here.runs(data_digest="d")
    assert there.variants[0].settings.data.root == "/there"


def test_a_file_that_leaves_the_datas_place_to_the_command_line_is_renamed_as_any_other() -> None:
    rootless = QUICK.replace(b"name: digits", b"name: images")
    overrides = [Override(path="data.root", value="/there"), Override(path="training.epochs", value=1)]

    assert parse_study(rootless, source="f", overrides=overrides[:1]).name == "quick"
    assert parse_study(rootless, source="f", overrides=overrides).name == "quick+training.epochs=1"


def test_an_override_reaches_any_key() -> None:
    spec = quick("questions[1].on=test_loss", "alpha=0.01", "factors.model.depth[1]=4").spec

    assert spec.questions[1].on == "test_loss"
    assert spec.alpha == 0.01
    assert spec.factors["model.depth"] == (2, 4)


def test_an_override_makes_the_section_that_the_file_lacks() -> None:
    assert quick("metric.name=test_loss").spec.metric.name == "test_loss"


def test_levels_replace_those_of_the_factor() -> None:
    study = quick(levels={"model.depth": [2, 4]})

    assert study.spec.factors["model.depth"] == (2, 4)
    assert study.name == "quick"


def test_the_first_of_the_levels_is_the_baselines_where_the_files_is_not_among_them() -> None:
    study = quick(levels={"model.depth": [4, 3]})

    assert study.variants[0].levels["model.depth"] == 4
    assert study.name == "quick+model.depth=4"


def test_one_level_sets_the_baseline_and_its_questions_go() -> None:
    study = quick(levels={"model.depth": [3]})

    assert study.spec.model.depth == 3
    assert list(study.spec.factors) == ["model.normalization"]
    assert [question.effect for question in study.questions] == ["model.normalization"]
    assert study.name == "quick+model.depth=3"


def test_levels_make_a_factor_that_the_file_lacks() -> None:
    study = quick(levels={"model.kernel": [3, 5]})

    assert study.spec.factors["model.kernel"] == (3, 5)
    assert study.name == "quick"


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ({"model.depth": []}, "needs at least one level besides the baseline's 2 @ factors.model.depth"),
        ({"model.depth": [3, 3]}, "level 3 stands twice @ factors.model.depth[1]"),
        ({"model.depth": [2, 9]}, "must be a whole number from 1 to 5, not 9 @ factors.model.depth[1]"),
        ({"model.dept": [2, 3]}, "unknown factor 'model.dept'; did you mean 'model.depth'? @ factors.model.dept"),
    ],
)
def test_wrong_levels_are_told_without_a_line_of_the_file(levels: Mapping[str, list[Any]], message: str) -> None:
    assert errors(levels=levels) == [message]


def test_a_wrong_single_level_is_told_without_a_line_of_the_file() -> None:
    assert errors(levels={"model.depth": [9]}) == ["must be a whole number from 1 to 5, not 9 @ model.depth"]


def test_no_factor_left_is_an_error() -> None:
    [message] = errors(levels={"model.depth": [3], "model.normalization": ["none"]})

    assert message.startswith("must be a mapping of at least one factor to its levels")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.epochs=0", "must be a whole number from 1 to 100000, not 0 @ training.epochs"),
        ("training.epochs=", "must be a whole number from 1 to 100000, not null @ training.epochs"),
        ("training.epoch=1", "unknown key 'epoch'; did you mean 'epochs'? @ training.epoch"),
        ("sedes=1", "unknown key 'sedes'; did you mean 'seeds'? @ sedes"),
        ("seeds.looks=[5, 3]", "looks must rise, and 3 stands after 5 @ seeds.looks"),
        ("seeds={first: 5, last: 3}", "must be more than first, which is 5, not 3 @ seeds.last"),
        ("seeds=5,8", f"must be {SEEDS_FORM}, not '5,8' @ seeds"),
        ("factors.model.depth=[2, 9]", "must be a whole number from 1 to 5, not 9 @ factors.model.depth[1]"),
        ("questions[2].on=test_loss", "the study file has no such item @ questions[2].on"),
        ("seeds[0]=1", "the study file has no such item @ seeds[0]"),
        (
            "name=a/b",
            "must be text of at most 200 letters, digits and ._+=,@[]-, a letter or digit first, not 'a/b' @ name",
        ),
    ],
)
def test_a_wrong_override_is_told_without_a_line_of_the_file(change: str, message: str) -> None:
    assert errors(change) == [message]


@pytest.mark.parametrize(
    ("change", "looks"),
    [
        ("seeds=7", (7,)),
        ("seeds={looks: [5, 8]}", (5, 8)),
        ("seeds={first: 5, last: 12}", (5, 8, 12)),
        ("seeds.looks=[3, 5]", (3, 5)),
    ],
)
def test_seeds_are_changed_to_a_number_or_to_looks(change: str, looks: tuple[int, ...]) -> None:
    study = quick(change)

    assert ("quick", looks) == (study.name, study.spec.looks)


@pytest.mark.parametrize("text", ["", "=", "=3", "training.epochs", " =3"])
def test_an_override_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(StudyFileError, match=r"--set has 1 error:\n  must be PATH=VALUE, such as training.epochs=5"):
        parse_override(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "is not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("*a", "anchors and aliases (& and *) are not allowed; write it out"),
        ("!!float 3", "tags (!) are not allowed; write the plain value"),
        ("{a: 1, a: 2}", "stands twice, first on line 1"),
        ("1\n---\n2", "holds more than one document; a study file is one"),
        ("\udcff", "is not valid YAML: has the character #xdcff"),
    ],
)
def test_a_value_that_no_file_may_have_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_value(text)


def test_the_value_of_an_override_may_hold_equals_signs_and_is_read_as_yaml() -> None:
    assert parse_override(" description = a=b ") == Override(path="description", value="a=b")
    assert parse_override("training.learning_rate=1e-3").value == 0.001
    assert parse_override("factors.model.depth=[2, 3]").value == [2, 3]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30) | st.from_regex(r"(name|training\.\w|questions\[\d\]|seeds)=.{0,10}", fullmatch=True))
def test_an_override_is_a_study_or_a_mistake_that_can_be_printed(text: str) -> None:
    try:
        quick(text)
    except StudyFileError as error:
        message = str(error)
        message.encode()
        assert all(line.isprintable() for line in message.splitlines())

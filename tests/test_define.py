"""The file that `ablation define` writes: what it says is what was chosen, and every other key stands there too."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.errors import StudyFileError
from ablation.study import Study, parse_study
from ablation.study.define import study_text
from ablation.study.sections import SECTIONS, Training, names_of

DEFAULTS: dict[str, Any] = {
    "path": "my-study.yaml",
    "name": "my-study",
    "data": "digits",
    "root": None,
    "factors": {"model.depth": [3, 4], "model.normalization": ["none", "batch"]},
    "seeds": 5,
    "epochs": 20,
}


def text(**choices: Any) -> str:
    return study_text(**{**DEFAULTS, **choices})


def defined(**choices: Any) -> Study:
    return parse_study(text(**choices).encode(), source="defined")


def test_the_file_is_the_study_that_was_chosen() -> None:
    spec = defined(name="mine", seeds=7, epochs=3).spec

    assert (spec.name, spec.seeds, spec.training.epochs) == ("mine", 7, 3)
    assert (3, 5) == defined(seeds={"looks": [3, 5]}).spec.looks
    assert dict(spec.factors) == {"model.depth": (3, 4), "model.normalization": ("none", "batch")}
    assert (spec.model.depth, spec.model.normalization) == (3, "none")


def test_one_level_sets_the_baseline_and_is_no_factor() -> None:
    spec = defined(factors={"model.depth": [2], "model.dense": [[16, 8], []]}).spec

    assert spec.model.depth == 2
    assert dict(spec.factors) == {"model.dense": ((16, 8), ())}


@pytest.mark.parametrize("data", ["digits", "cifar10", "images"])
def test_every_key_stands_in_the_file_set_or_as_a_comment(data: str) -> None:
    written = text(data=data, root=None if data == "digits" else "photos")
    keys = {line.strip().lstrip("# ").partition(":")[0] for line in written.splitlines() if ":" in line}

    named = [model for models in SECTIONS.values() for model in models if names_of(model) in (("cnn",), (data,))]
    models = [*named, Training]
    assert {key for model in models for key in model.model_fields} <= keys


@pytest.mark.parametrize("data", ["digits", "cifar10", "images"])
def test_what_stands_as_a_comment_is_the_default(data: str) -> None:
    root = None if data == "digits" else "photos"
    written = text(data=data, root=root)
    uncommented = "\n".join(
        line.replace("# ", "", 1) if line.startswith("  # ") and "# limit:" not in line else line
        for line in written.splitlines()
    )

    assert parse_study(uncommented.encode(), source="defined") == defined(data=data, root=root)


def test_the_commented_questions_are_valid() -> None:
    lines = text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("# questions:"))
    uncommented = "\n".join([*lines[:start], *(line.removeprefix("# ") for line in lines[start:])])

    questions = parse_study(uncommented.encode(), source="defined").spec.questions

    assert [question.factors for question in questions] == [
        ("model.depth",),
        ("model.normalization",),
        ("model.depth", "model.normalization"),
    ]


def test_images_without_a_root_are_refused_in_the_files_words() -> None:
    with pytest.raises(StudyFileError, match=r"is missing; for example `root: photos\.tar\.gz` @ data\.root"):
        defined(data="images")


@pytest.mark.parametrize("name", ["5", "true", "null", "1e-3", "a", "A.b-c_d", "2001-01-01", "x=1,y=[2]", "no"])
def test_a_name_stays_text(name: str) -> None:
    assert defined(name=name).name == name


@settings(max_examples=100, deadline=None)
@given(
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+=,@\[\]-]{0,20}", fullmatch=True),
    root=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20),
    path=st.text(max_size=20).filter(lambda text: text.isprintable() or text in ("a\nb", "a\r\nb")),
    depths=st.lists(st.integers(1, 5), min_size=2, max_size=5, unique=True),
    seeds=st.integers(1, 10_000),
    epochs=st.integers(1, 100_000),
)
def test_what_is_written_is_read_back(
    name: str, root: str, path: str, depths: list[int], seeds: int, epochs: int
) -> None:
    spec = defined(
        name=name, data="images", root=root, path=path, factors={"model.depth": depths}, seeds=seeds, epochs=epochs
    ).spec

    assert (spec.name, spec.seeds, spec.training.epochs) == (name, seeds, epochs)
    assert json.loads(spec.data.model_dump_json())["root"] == root
    assert dict(spec.factors) == {"model.depth": tuple(depths)}

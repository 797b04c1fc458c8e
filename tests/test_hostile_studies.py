"""Study files that somebody made to do harm, or by accident: each is refused in words, in no time and little memory."""

import contextlib
import copy
import itertools
import json
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_study_file import EVERYTHING, VALID, VALUES, positions, put

from ablation.errors import AblationError, StudyFileError
from ablation.study import Override, Study, load_study, parse_override, parse_study
from ablation.study.spec import MAX_NAME, NAME_CHARACTERS

CORPUS = Path(__file__).parent / "corpus"
SAID = Path(__file__).parent / "golden" / "corpus.txt"
"""Each file of the corpus, and below it, indented, what is said of it; nothing of one that is a study after all."""

OWN_CODE: dict[str, Any] = {
    "name": "own",
    "data": {"name": "data.py:load", "root": "here", "scale": 2, "validation": 0.2},
    "model": {"name": "nets.py:build", "width": 4, "attention": True, "remove": ["*.skip"]},
    "training": {"name": "train.py:fit", "threads": 2, "epochs": 3},
    "factors": {"model.width": [4, 8], "skip": {"replace": {"*.act": "GELU"}}, "training.epochs": [3, 5]},
    "design": "listed",
    "variants": {"wide": {"model.width": 8}, "all": {"model.width": 8, "skip": "replaced", "training.epochs": 5}},
    "metric": {"name": "f1", "direction": "maximize", "meaningful": 0.1},
    "metrics": {"f1": "maximize", "recall": "maximize"},
    "questions": [{"variant": "wide", "on": "recall"}],
    "seeds": 2,
}
BASES = (EVERYTHING, OWN_CODE)
WIDE_RANGE = settings(max_examples=50, deadline=None)


def said_of(path: Path) -> list[str]:
    try:
        load_study(path)
    except StudyFileError as error:
        return [f"  {problem}" for problem in error.problems]
    return []


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.iterdir()))
def test_of_each_file_of_the_corpus_this_is_said(name: str) -> None:
    _, _, after = f"\n{SAID.read_text(encoding='utf-8')}".partition(f"\n{name}:\n")
    expected = list(itertools.takewhile(lambda line: line.startswith("  "), after.split("\n")))

    assert after
    assert expected == said_of(CORPUS / name)


def test_a_number_without_a_dot_is_a_number_and_a_byte_order_mark_nothing() -> None:
    study = load_study(CORPUS / "float-without-dot.yaml")

    assert 0.001 == study.spec.training.learning_rate
    assert parse_study(VALID.encode(), source="f").variants == load_study(CORPUS / "byte-order-mark.yaml").variants


@pytest.mark.slow
@pytest.mark.parametrize("levels", [100_000])
@pytest.mark.parametrize("unit", ["[", "{a: ", "[\n", "- - - - - - - - - - \n"])
def test_depth_takes_neither_the_stack_nor_memory(unit: str, levels: int) -> None:
    content = (unit * levels)[: 1024 * 1024].encode()

    tracemalloc.start()
    with pytest.raises(StudyFileError) as caught:
        parse_study(content, source="f.yaml")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert 1 == len(caught.value.problems)
    assert peak_bytes < 32 << 20


def _device(folder: Path) -> Path:
    return Path("/dev/zero")


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def _link_to_pipe(folder: Path) -> Path:
    (folder / "link.yaml").symlink_to(_pipe(folder))
    return folder / "link.yaml"


def _circle(folder: Path) -> Path:
    (folder / "circle.yaml").symlink_to(folder / "circle.yaml")
    return folder / "circle.yaml"


def _unreadable(folder: Path) -> Path:
    path = folder / "secret.yaml"
    path.write_text(VALID)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_device, "it is a pipe or a device; save it as a file"),
        (_pipe, "it is a pipe or a device; save it as a file"),
        (_link_to_pipe, "it is a pipe or a device; save it as a file"),
        (_circle, "Too many levels of symbolic links"),
        (lambda folder: folder, "Is a directory"),
        (lambda folder: folder / ("a" * 300), "File name too long"),
        (lambda folder: folder / "a\0b", "a path has no NUL"),
        (_unreadable, "Permission denied"),
    ],
    ids=["device", "pipe", "link to a pipe", "circle", "folder", "long name", "NUL", "unreadable"],
)
def test_what_is_no_file_is_a_sentence_and_never_waited_for(
    make: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    path = make(tmp_path)

    with pytest.raises(AblationError) as caught:
        load_study(path)

    assert f"cannot read the study file {path}: {said}" == str(caught.value)


@pytest.mark.parametrize(
    "value", ["../../../losses.py:focal", "/etc/losses.py:focal", "größe.py:a", f"{'a/' * 2000}a.py:f"]
)
def test_a_study_named_after_its_changes_has_a_name_like_any_other(value: str) -> None:
    name = parse_study(VALID.encode(), source="f", overrides=[Override(path="training.loss", value=value)]).name

    assert name.startswith("small+training.loss=")
    assert re.fullmatch(f"[{NAME_CHARACTERS}]+", name)
    assert len(name) <= MAX_NAME


def test_names_that_differ_in_what_no_name_may_have_stay_apart() -> None:
    names = [
        parse_study(VALID.encode(), source="f", overrides=[Override(path="training.loss", value=value)]).name
        for value in ("a/b.py:f", "a-b.py:f", "a/b.py:g")
    ]

    assert 3 == len(set(names))


@pytest.mark.parametrize("text", [f"{'a.' * 60}b=1", f"{'a.' * 20_000}b=1"])
def test_a_change_nested_too_deep_is_refused(text: str) -> None:
    with pytest.raises(StudyFileError, match="is more than 50 levels deep"):
        parse_study(VALID.encode(), source="f", overrides=[parse_override(text)])


def test_a_level_with_control_characters_is_refused_as_it_stands_in_names() -> None:
    for level in ("a\nb", "a\0b", "\u202e", ("a", "\x1b[2J")):
        document = {**OWN_CODE, "factors": {"model.width": [4, level]}, "design": "factorial"}
        del document["variants"], document["questions"]

        with pytest.raises(StudyFileError, match=r"printable word.* @ factors\.model\.width\[1\]"):
            parse_study(json.dumps(document).encode(), source="f")


@WIDE_RANGE
@given(st.sampled_from(BASES), st.data())
def test_a_study_with_bytes_changed_is_a_study_or_a_mistake(base: dict[str, Any], data: st.DataObject) -> None:
    content = bytearray(VALID.encode() if data.draw(st.booleans()) else json.dumps(base, indent=1).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        stop = min(len(content), start + data.draw(st.integers(0, 5)))
        content[start:stop] = data.draw(
            st.binary(max_size=5) | st.sampled_from([b"{", b"]", b'"', b"\n", b"- ", b"&a "])
        )

    check_parses(lambda: parse_study(bytes(content), source="f"))


KEYS = st.sampled_from(
    [*EVERYTHING, *OWN_CODE, "model.depth", "remove", "effect", "log", "1", "a b", "../x", "<b>", ""]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["cnn", "digits", "a.py:f", "torchvision:resnet18", "torchvision:../x", "factorial", "1e-3", "../.."]
    ),
)
STRUCTURES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)


@WIDE_RANGE
@given(st.dictionaries(KEYS, STRUCTURES, max_size=8))
def test_any_structure_is_a_study_or_a_mistake(document: dict[str, Any]) -> None:
    check_parses(lambda: parse_study(json.dumps(document).encode(), source="f"))


@WIDE_RANGE
@given(st.sampled_from(BASES), st.data())
def test_a_study_with_any_values_anywhere_is_a_study_or_a_mistake(base: dict[str, Any], data: st.DataObject) -> None:
    document = copy.deepcopy(base)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(positions(base)[1:]))
        put(document, path, data.draw(STRUCTURES | VALUES | st.just(...)))

    check_parses(lambda: parse_study(json.dumps(document).encode(), source="f"))


PATHS = st.sampled_from(
    [
        "",
        ".",
        "name",
        "name[0]",
        "model",
        "model.depth",
        "factors.model.depth",
        "factors.model.depth[1]",
        "tune",
        "x.y[2]",
    ]
) | st.text(".[]0ab", max_size=12)


@WIDE_RANGE
@given(
    st.sampled_from(BASES),
    st.lists(st.tuples(PATHS, STRUCTURES), max_size=3),
    st.dictionaries(
        st.sampled_from(["model.depth", "model.width", "model.x", "x"]), st.lists(SCALARS, max_size=3), max_size=2
    ),
    st.none() | st.text(max_size=5),
)
def test_any_changes_of_the_command_line_make_a_study_or_a_mistake(
    base: dict[str, Any], changes: list[tuple[str, Any]], levels: dict[str, list[Any]], name: str | None
) -> None:
    overrides = [Override(path=path, value=value) for path, value in changes]
    content = json.dumps(base).encode()

    check_parses(lambda: parse_study(content, source="f", overrides=overrides, levels=levels, name=name))


@WIDE_RANGE
@given(st.text(max_size=60))
def test_any_change_as_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(StudyFileError):
        assert parse_override(text).path


def check_parses(parse: Callable[[], Study]) -> None:
    """Hold a parse to giving a whole study, or problems each on a line of its own, in the user's words."""
    try:
        study = parse()
    except StudyFileError as error:
        check_words(error)
    else:
        assert re.fullmatch(f"[A-Za-z0-9][{NAME_CHARACTERS}]*", study.name)
        assert all(run.name.isprintable() for run in study.runs(data_digest="d"))
        documents = [
            study.spec.document(),
            study.locked().plain(),
            [variant.settings.plain() for variant in study.variants],
        ]
        json.dumps(documents, allow_nan=False)


def check_words(error: StudyFileError) -> None:
    assert error.problems
    for problem in error.problems:
        assert str(problem).isprintable(), problem
        assert len(problem.message) < 1500
        assert not re.search(r"pydantic|Traceback|Input should|validation error|object at 0x", problem.message)

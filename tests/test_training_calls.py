"""What a training function is given: what is offered by the names of its parameters, and the keys of `training`."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablation.code import UNREAD, CodeFolders, own_settings, training_call, training_signature
from ablation.errors import CodeInvalid

NAME = "train.py:train"
THREE = ("settings", "seed", "report")


def of(source: str, *keys: str) -> Any:
    """Return how a function is called, whose parameters are the source; its signature and that of its source agree."""
    space: dict[str, Any] = {}
    exec(f"def train({source}): pass", space)
    return training_call(training_signature(space["train"]), keys, name=NAME)


@pytest.mark.parametrize(
    ("parameters", "keys", "by_position", "offered", "taken"),
    [
        ("settings, seed, report", ("rate",), False, THREE, ()),
        ("report, rate, seed", ("rate",), False, ("seed", "report"), ("rate",)),
        ("learning_rate=1e-3, hidden=64, seed=0", (), False, ("seed",), ()),
        ("learning_rate=1e-3, hidden=64, seed=0", ("hidden",), False, ("seed",), ("hidden",)),
        ("model, data, device, *, rate", ("rate",), False, ("data", "model", "device"), ("rate",)),
        ("seed, threads, **rest", ("rate", "threads"), False, ("seed",), ("rate", "threads")),
        ("model, seed", ("model",), False, ("seed",), ("model",)),
        ("settings, seed, report, rate=1, max_batches=None", ("rate",), False, (*THREE, "max_batches"), ("rate",)),
        ("cfg, seed, report", ("rate",), True, (), ()),
        ("s, n, r, data, *, max_batches=None", ("rate",), True, ("data", "max_batches"), ()),
        ("s, n, r, rate=1", ("rate",), True, (), ()),
        ("a, b, c, /", (), True, (), ()),
        ("*given, **named", ("rate",), True, (), ()),
        ("", (), False, (), ()),
    ],
)
def test_a_function_is_given_what_its_parameters_are_called(
    parameters: str,
    keys: tuple[str, ...],
    by_position: bool,
    offered: tuple[str, ...],
    taken: tuple[str, ...],
) -> None:
    call = of(parameters, *keys)

    assert (by_position, offered, taken) == (call.is_by_position, call.offered, call.keys)


@pytest.mark.parametrize(
    ("parameters", "keys", "said"),
    [
        ("rate, seed", ("rat",), "train.py:train needs `rate`, and nothing gives it: add `rate: …` to training, or"),
        ("rate, seed", ("rat",), "; did you mean 'rat'?; given by name are settings, seed, report, data, model"),
        ("rate, hidden, report", ("hidden",), "train.py:train needs `rate`"),
        ("modle, report", (), "did you mean 'model'?"),
        ("settings, seed, report, rate", (), "needs `rate`"),
        ("rate=1, seed=0", ("rate", "hiden"), "nothing reads this key: train.py:train has no parameter 'hiden'; it "),
        ("rate=1, hidden=2", ("hiden",), "it takes rate, hidden; did you mean 'hidden'? @ training.hiden"),
        ("seed", ("x",), "it takes no setting @ training.x"),
        ("seed, x", ("x", "seed"), "train.py:train is given `seed` by that name (a number for random streams,"),
        ("a, /, seed", (), "train.py:train takes 'a' by position; only (settings, seed, report) are given so"),
    ],
)
def test_what_cannot_be_called_is_refused_with_what_is_offered(
    parameters: str, keys: tuple[str, ...], said: str
) -> None:
    with pytest.raises(CodeInvalid) as caught:
        of(parameters, *keys)

    assert said in str(caught.value)


def test_what_is_not_there_keeps_the_functions_default() -> None:
    def train(rate: float, seed: int, data: Any = None, device: str = "mine") -> tuple[Any, ...]:
        return rate, seed, data, device

    call = training_call(training_signature(train), ("rate", "threads"), name=NAME)
    by_position, by_name = call.arguments({"seed": 7, "data": "there"}, {"rate": 0.5, "threads": 1})

    assert ("data", ("seed",)) == (call.offered[1], call.needed)
    assert (0.5, 7, "there", "mine") == train(*by_position, **by_name)


def test_what_is_called_by_position_gets_the_three_as_before() -> None:
    call = of("cfg, n, say, data", "rate")

    assert (("s", 1, "r"), {"data": 2}) == call.arguments(
        {"settings": "s", "seed": 1, "report": "r", "data": 2}, {"rate": 3}
    )


def test_a_source_tells_the_signature_that_the_function_has(tmp_path: Path) -> None:
    source = "def train(a, b: int = 3, /, c=None, *more, seed=-1, e=[1, 2], f=len, **rest): pass"
    (tmp_path / "train.py").write_text(source)
    space: dict[str, Any] = {}
    exec(source, space)

    found = CodeFolders(folders=(tmp_path,)).training_signature(NAME)

    assert found is not None
    whole = inspect.signature(space["train"])
    assert [(one.name, one.kind) for one in whole.parameters.values()] == [
        (one.name, one.kind) for one in found.parameters.values()
    ]
    assert {"c": None, "e": [1, 2], "f": UNREAD} == own_settings(found)
    assert inspect.Parameter.empty is found.parameters["a"].default


@pytest.mark.parametrize("source", ["train = other", "@wrapped\ndef train(): pass", "class train: pass", "def tr(", ""])
def test_a_source_that_does_not_tell_a_signature_says_nothing(source: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(source)

    assert CodeFolders(folders=(tmp_path,)).training_signature(NAME) is None


def test_what_has_no_signature_is_called_by_position() -> None:
    function: Callable[..., Any] = type

    assert training_call(training_signature(function), ("rate",), name=NAME).is_by_position

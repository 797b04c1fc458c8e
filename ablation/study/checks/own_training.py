"""Checks that a training function of one's own can be called with what its study file has, as its source tells it."""

from collections.abc import Iterator, Mapping
from typing import Any

from ablation.code import CodeFolders, call_problems, training_call
from ablation.study.file import Location
from ablation.study.spec import is_own_training

Found = tuple[Location, str]
_NEEDS: Mapping[str, tuple[str, ...]] = {"data": ("data",), "model": ("data", "model")}
"""The sections that something offered is made from: a model is built for the shape of the data."""
_EXAMPLES: Mapping[str, str] = {"data": "data: {name: digits}", "model": "model: {name: cnn, depth: 3}"}


def own_training_problems(values: Mapping[str, Any], code: CodeFolders) -> Iterator[Found]:
    """Yield what stands in the way of calling a training function, as far as its source tells; nothing is executed."""
    training = values.get("training")
    name = training.get("name") if isinstance(training, Mapping) else None
    if not isinstance(name, str) or not isinstance(training, Mapping) or not is_own_training(values):
        return
    signature, keys = code.training_signature(name), [key for key in training if isinstance(key, str)]
    if signature is None:
        return
    problems = list(call_problems(signature, keys, name=name))
    if problems:
        yield from ((tuple(path.split(".")), message) for path, message in problems)
        return
    needed = training_call(signature, keys, name=name).needed
    for offered, sections in _NEEDS.items():
        for section in sections if offered in needed else ():
            if values.get(section) is None:
                yield (section,), f"is missing, and {name} takes `{offered}`; for example `{_EXAMPLES[section]}`"

"""Writes a study file from the signatures of code of one's own, for `ablation define --training` and `--model`.

Where the source tells them, parameters become keys with their defaults, and nothing is imported. What cannot be known
stands as a comment, and is said: the study file is refused until it is filled in.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablation.code import CodeFolders, is_code, own_settings, training_call
from ablation.records import TASKS, Direction
from ablation.study.file import plain_text, value_text

DATA_SHAPE = "data_shape"
UNKNOWN, UNSAID = ..., None
"""Stand for a value that must be given, and for a default that is none of a study file's or is not in the source."""
_LAST = re.compile(
    r"(n_|num_|max_|eval_)?(epochs?|steps?|iterations?|batch_?size|batches|threads|workers)|verbose|debug"
)
"""Parameters that say how much is trained, which one compares last."""
_METRIC_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")  # what a study file may compare
_RATE = re.compile(r"lr|.*(learning_rate|weight_decay|_lr)")
_BETTER: Mapping[Direction, re.Pattern[str]] = {
    "minimize": re.compile(
        r"loss|error|rmse|mse|mae|mape|nll|perplexity|ppl|bits|bpc|cer|wer|fid|seconds|time|brier|ece"
    ),
    "maximize": re.compile(
        r"acc|accuracy|f1|auc|auroc|map|r2|iou|dice|bleu|rouge|score|precision|recall|reward|return"
    ),
}
"""Words of a metric's name by which it is guessed what is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCode:
    """The code that a study is defined from, by its names in the file; `data` may be a built-in data set."""

    training: str | None = None
    model: str | None = None
    data: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A study file's text, and in sentences what is to be filled in before it can run."""

    text: str
    to_fill_in: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _Sections:
    """What the file has by now: each section's keys with their values, and what is to be filled in."""

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    to_fill_in: list[str] = field(default_factory=list)


def own_study(
    own: OwnCode, code: CodeFolders, *, path: str, name: str, seeds: int | Mapping[str, Any], metric: str | None
) -> Written:
    """Return a study file; `metric` is `NAME:DIRECTION`, or None where it is read from what the function returns.

    Raises:
        CodeInvalid: the code is not there, or its source does not tell its parameters and it cannot be imported.
    """
    found = _Sections()
    needs = set[str]()
    if own.training is not None:
        needs = _read_training(own.training, code, found)
    for section, named in (("model", own.model), ("data", own.data or ("digits" if own.model else None))):
        if named is not None:
            parameters = _parameters(named, code, section) if is_code(named) else {}
            _add(found, section, named, {key: value for key, value in parameters.items() if key != DATA_SHAPE})
    for section in sorted(needs - found.values.keys()):
        found.to_fill_in.append(f"{section}: {own.training} takes `{section}`; name it, or give --{section}")
    one_line = " ".join(path.splitlines())
    lines = [
        "# A study file of ablation, from the signatures of your code: its settings are the baseline.",
        f"# `ablation plan {one_line}` shows what it would cost, `ablation study {one_line}` runs it.",
        f"name: {plain_text(name)}",
        "",
        *_section_lines(found, needs),
        *_factor_lines(found),
        f"seeds: {_text(seeds)}    # runs per variant; the same seed draws the same in every variant",
        "",
        *(_metric_lines(own, code, metric, found) if own.training else _engine_metric_lines(metric)),
    ]
    return Written(text="\n".join(lines) + "\n", to_fill_in=tuple(found.to_fill_in))


def _read_training(name: str, code: CodeFolders, found: _Sections) -> set[str]:
    """Add the settings of a training function, and return the sections that what it takes is made from."""
    signature = code.training_signature(name) or _imported_signature(name, code, "training")
    settings = {key: _known(value) for key, value in own_settings(signature).items()}
    call = training_call(signature, [key for key, value in settings.items() if value is UNKNOWN], name=name)
    if not settings or call.is_by_position:
        settings = {**code.settings_taken(name, "training")}
        settings.pop("name", None)
        if "model" in (code.settings_read(name) or ()):
            found.to_fill_in.append(f"model: {name} reads settings['model']; name a model, with the keys that it reads")
    _add(found, "training", name, settings)
    return {offered for offered in ("data", "model") if offered in call.needed} | (
        {"data"} if "model" in call.needed else set()
    )


def _parameters(name: str, code: CodeFolders, section: str) -> dict[str, Any]:
    signature = code.training_signature(name) or _imported_signature(name, code, section)
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {each.name: _known(each.default) for each in signature.parameters.values() if each.kind in kinds}


def _imported_signature(name: str, code: CodeFolders, section: str) -> inspect.Signature:
    """Return the signature of what its source alone does not tell: a class, or what is decorated or made by a call."""
    try:
        return inspect.signature(code.load(name, path=f"--{section}"))
    except (TypeError, ValueError):  # it is not written in Python
        return inspect.Signature()


def _known(default: Any) -> Any:
    """Return a default that a study file can have; UNKNOWN of a parameter without one, UNSAID of any other."""
    if isinstance(default, list | tuple) and default:
        known = [_known(each) for each in default]
        return UNSAID if any(each is UNSAID or each is UNKNOWN for each in known) else known
    if default is inspect.Parameter.empty:
        return UNKNOWN
    return default if isinstance(default, bool | int | float | str) else UNSAID


def _add(found: _Sections, section: str, name: str, settings: Mapping[str, Any]) -> None:
    found.values[section] = {"name": name, **settings}
    unknown = [f"{section}.{key}" for key, value in settings.items() if value is UNKNOWN]
    if unknown:
        found.to_fill_in.append(f"{', '.join(unknown)}: {'a value' if len(unknown) == 1 else 'values'}")


def _section_lines(found: _Sections, needs: set[str]) -> Iterator[str]:
    for section in ("data", "model", "training"):
        if section in found.values:
            yield f"{section}:"
            yield from (_key_line(key, value) for key, value in found.values[section].items())
            if section == "data" and is_code(found.values["data"]["name"]):
                others = ", ".join(task for task in TASKS if task != "classification")
                yield f"  # task: classification    # or {others}"
            yield ""
        elif section in needs:
            yield f"# {section}: {{name: FILE.py:FUNCTION}}    # FILL IN: what your function is given as `{section}`"
            yield ""


def _key_line(key: str, value: Any) -> str:
    if value is UNKNOWN:
        return f"  # {key}:    # FILL IN: it has no default"
    return (
        f"  # {key}:    # its default holds; give it a value to vary it"
        if value is UNSAID
        else f"  {key}: {_text(value)}"
    )


def _factor_lines(found: _Sections) -> Iterator[str]:
    """Yield the first setting that another value stands beside; others as comments."""
    levels = [
        (f"{section}.{key}", _levels(key, value))
        for section in ("model", "data", "training")
        for key, value in found.values.get(section, {}).items()
        if key != "name" and value is not UNKNOWN and value is not UNSAID
    ]
    usual = [(path, pair) for path, pair in levels if len(pair) > 1]
    usual.sort(key=lambda each: bool(_LAST.fullmatch(each[0].rpartition(".")[2])))
    if not usual and "training" not in found.values:
        usual = [("training.learning_rate", [1e-3, 1e-2])]
    if usual:
        yield "# What is varied: a setting and its levels, the baseline's among them."
        yield "factors:"
    else:
        found.to_fill_in.append("factors: what is varied, with its levels")
        yield "# FILL IN what is varied: a setting and its levels, the baseline's among them."
        yield "# factors:"
        examples = [*levels, *((path, ["LEVEL"]) for path in _unknown(found))] or [("training.SETTING", ["LEVEL"])]
        yield from (f"#   {path}: [{', '.join(map(_text, [*pair, 'OTHER']))}]" for path, pair in examples)
    for place, (path, pair) in enumerate(usual):
        yield f"  {'# ' if place else ''}{path}: [{', '.join(map(_text, pair))}]"
    yield ""


def _unknown(found: _Sections) -> Iterator[str]:
    for section, settings in found.values.items():
        yield from (f"{section}.{key}" for key, value in settings.items() if value is UNKNOWN)


def _levels(key: str, value: Any) -> list[Any]:
    """Return a value and another one to compare it with, or the value alone where none suggests itself."""
    match value:
        case bool():
            return [value, not value]
        case int():
            return [value, 2 * value if value > 0 else value + 1]
        case float():
            return [value, float(f"{value / (10 if _RATE.fullmatch(key) else 2):.6g}") or 0.1]
        case _:
            return [value]


def _metric_lines(own: OwnCode, code: CodeFolders, given: str | None, found: _Sections) -> Iterator[str]:
    """Yield the metric of a training function: the first that it returns, and the others as comments."""
    returned = [each for each in code.returned_names(str(own.training)) if _METRIC_NAME.fullmatch(each)]
    name, _, way = given.partition(":") if given is not None else (next(iter(returned), ""), "", "")
    guessed = _direction(name)
    direction = way or guessed
    if direction is None:
        what = "maximize or minimize" if name else "a key of what your function returns, and which way is better"
        found.to_fill_in.append(f"metric: {what}")
    yield "# What is compared. A difference below `meaningful` does not matter to you; decide it before the first run."
    yield "metric:"
    unnamed = "" if name else "    # FILL IN: a key of what your function returns"
    yield f"  name: {plain_text(name or 'NAME')}{unnamed}"
    ending = "" if way else "    # guessed from its name" if direction else "    # FILL IN"
    yield f"  direction: {direction or 'maximize or minimize'}{ending}"
    yield "  # meaningful: 0.01"
    others = [each for each in returned if each != name]
    if others:
        yield "# metrics:    # what else it returns"
        yield from (f"#   {plain_text(each)}: {_direction(each) or 'maximize or minimize'}" for each in others)


def _engine_metric_lines(given: str | None) -> Iterator[str]:
    """Yield the metric of a study that the engine trains: by default the usual one of its task."""
    yield "# A difference below `meaningful` does not matter to you; decide it before the first run."
    if given is None:
        yield "# metric: {name: test_accuracy, meaningful: 0.005}    # by default the usual one of the task"
        return
    name, _, direction = given.partition(":")
    yield f"metric: {{name: {plain_text(name)}{f', direction: {direction}' if direction else ''}}}"


def _direction(name: str) -> Direction | None:
    """Return what is better by the words of a metric's name, None where they say both or nothing."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower())
    ways: Sequence[Direction] = [way for way, known in _BETTER.items() if any(known.fullmatch(word) for word in words)]
    return ways[0] if len(ways) == 1 else None


def _text(value: Any) -> str:
    return plain_text(value) if isinstance(value, str) else value_text(value)

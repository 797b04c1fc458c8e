"""Checks when a study's settings are tuned at all, and what a user's training function is tuned by."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ablation.lookup import did_you_mean, is_same
from ablation.records import SIGNS, TASKS, Variant
from ablation.study.checks.baseline import setting
from ablation.study.checks.metrics import MEASURED_ANYWAY
from ablation.study.factors import levels_of, varied_settings
from ablation.study.file import Location, shown
from ablation.study.search_spaces import SearchSpace, Tuning, drawing_order
from ablation.study.spec import StudySpec, factor_fields, is_own_training, task_of

Found = tuple[Location, str]
_OF_TEST = re.compile(r"test([_.-].*|$)", re.IGNORECASE)


def space_condition_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Yield the conditions of tuned settings that look at nothing, hold nowhere, or look at each other in a circle."""
    spaces = _spaces(values)
    for path, space in spaces.items():
        for name, wanted in space.conditions.items():
            here: Location = ("tune", path, "when", name)
            if name == path:
                yield here, "is a condition of a setting on itself"
                continue
            found = _values_of(name, values, spaces)
            if isinstance(found, str):
                yield here, found
                continue
            wrong = [value for value in wanted if not any(is_same(value, known) for known in found)]
            if wrong or not wanted:
                allowed = ", ".join(map(shown, found))
                yield here, f"{shown(wrong[0] if wrong else wanted)} is never its value; it may be {allowed}"
    circle = _circle(spaces)
    if circle:
        yield (
            ("tune", circle[0], "when"),
            f"the conditions of {' and '.join(circle)} look at each other; leave one of them out",
        )


def idle_space_problems(spec: StudySpec, variants: Sequence[Variant]) -> Iterator[Found]:
    """Yield the tuned settings whose condition on factors no variant of the design fulfils."""
    for path, space in spec.tune.spaces.items() if spec.tune is not None else ():
        factors = {name: wanted for name, wanted in space.conditions.items() if name in spec.factors}
        if not any(
            all(any(is_same(each.levels.get(name), value) for value in wanted) for name, wanted in factors.items())
            for each in variants
        ):
            yield ("tune", path, "when"), f"no variant of this design has {_levels_text(factors)}"


def _levels_text(factors: Mapping[str, Sequence[Any]]) -> str:
    return " and ".join(f"{name} {' or '.join(map(shown, wanted))}" for name, wanted in factors.items())


def _spaces(values: Mapping[str, Any]) -> dict[str, SearchSpace]:
    """Return the spaces of an unchecked study that are valid by themselves."""
    tune = values.get("tune")
    found: dict[str, SearchSpace] = {}
    for path, space in tune.items() if isinstance(tune, Mapping) else ():
        if isinstance(path, str) and path not in Tuning.model_fields:
            try:
                found[path] = SearchSpace.model_validate(space)
            except ValidationError:
                continue  # said in its own place
    return found


def _values_of(name: str, values: Mapping[str, Any], spaces: Mapping[str, SearchSpace]) -> tuple[Any, ...] | str:
    """Return the values that a condition can find a factor or a tuned choice at, or why it cannot look at it."""
    factors = values.get("factors")
    if isinstance(factors, Mapping) and name in factors:
        return levels_of(factors[name])
    set_by_recipes = [value for _, path, value in varied_settings(factors) if path == name]
    if set_by_recipes and name not in spaces:
        field = factor_fields(values).get(name)
        kept = [setting(values, name, field)] if field is not None else []
        return _distinct([*kept, *set_by_recipes])
    if (space := spaces.get(name)) is not None:
        if space.choices is None:
            return f"{name} is tuned on a scale; a condition is on a factor, or on what is tuned among choices"
        field = factor_fields(values).get(name)
        kept = [setting(values, name, field)] if space.when and field is not None else []
        return _distinct([*space.choices, *kept])
    varied = [path for _, path, _ in varied_settings(factors)]
    known = list(dict.fromkeys([*(factors if isinstance(factors, Mapping) else ()), *varied, *_choices(spaces)]))
    near = did_you_mean(name, known) or f"; there are: {', '.join(map(str, known))}"
    return f"{shown(name)} is no factor of this study, set by none, and not tuned among choices{near}"


def _choices(spaces: Mapping[str, SearchSpace]) -> list[str]:
    return [path for path, space in spaces.items() if space.choices is not None]


def _distinct(found: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(value for index, value in enumerate(found) if not any(is_same(value, one) for one in found[:index]))


def _circle(spaces: Mapping[str, SearchSpace]) -> list[str]:
    """Return settings whose conditions look at each other, in their order; none where there is no such circle."""
    left = [path for path in spaces if path not in drawing_order(spaces)]
    walk: list[str] = left[:1]
    while walk:
        following = next(name for name in spaces[walk[-1]].when if name in left)
        if following in walk:
            return walk[walk.index(following) :]
        walk.append(following)
    return []


def validation_metric_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Yield what is wrong with what a study says that it is tuned by: on validation, and nothing that is compared."""
    metric, tune = values.get("metric"), values.get("tune")
    given = metric if isinstance(metric, Mapping) else {}
    here: Location = ("metric", "validation")
    name = given.get("validation")
    if not is_own_training(values):
        if name is not None:
            yield here, f"is for a training function of your own; the engine {_engine_text(values)}: leave it out"
        return
    if tune is not None and name is None:
        yield (
            here,
            "is missing: tuning a training function of your own is judged by what it reports after every epoch, or "
            f"returns, on the validation split; for example `metric: {_example(given)}`",
        )
    if not isinstance(name, str):
        return
    questions = values.get("questions")
    asked = [each.get("on") for each in questions if isinstance(each, Mapping)] if isinstance(questions, tuple) else []
    if name == given.get("name") or name in asked:
        yield here, f"{shown(name)} is compared too; trials are judged by a metric on validation that is not compared"
    elif _OF_TEST.match(name):
        yield here, f"{shown(name)} is, by its name, of test; trials are judged on validation: report such a metric"
    elif name in MEASURED_ANYWAY:
        yield here, f"{shown(name)} is measured anyway; give the metric on validation another name"


def _engine_text(values: Mapping[str, Any]) -> str:
    metric, task = values.get("metric"), TASKS[task_of(values)]
    name = metric.get("name", task.default_metric) if isinstance(metric, Mapping) else task.default_metric
    measured = task.metrics.get(name) if isinstance(name, str) else None
    by = (measured and measured.tuned_by) or task.score
    return f"measures on validation itself, and tunes by the {by} there"


def _example(metric: Mapping[str, Any]) -> str:
    name = metric.get("name") if isinstance(metric.get("name"), str) else "rmse"
    way = metric.get("direction") if metric.get("direction") in SIGNS else "minimize"
    return f"{{name: {name}, direction: {way}, validation: val_{str(name).removeprefix('test_')}}}"

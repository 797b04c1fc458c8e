"""Reads metrics that somebody asks for after the runs: `NAME=FUNCTION:DIRECTION`, or a mapping as in a study file."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ablation.errors import Problem, StudyFileError
from ablation.records import SIGNS, DeclaredMetric
from ablation.study.expected import expected
from ablation.study.file import read_value, shown
from ablation.study.sections import OwnMetric
from ablation.study.spec import MetricName

_NAME: TypeAdapter[str] = TypeAdapter(MetricName)
FORM = "NAME=FUNCTION:DIRECTION, such as macro_f1=metrics.py:macro_f1:maximize"


def parse_metric(text: str) -> DeclaredMetric:
    """Read `f1=m.py:f1:maximize`, or `f1={function: "m.py:f1", direction: maximize, average: macro}`.

    Raises:
        StudyFileError: the text has another form.
    """
    name, equals, value = text.partition("=")
    function, _, direction = value.rpartition(":")
    if equals and value.lstrip().startswith("{"):
        try:
            return metric_of(name.strip(), read_value(value), source="--metric")
        except ValueError as error:
            raise StudyFileError("--metric", [Problem(message=str(error), path=name)]) from None
    if not equals or direction not in SIGNS or not function:
        raise StudyFileError("--metric", [Problem(message=f"must be {FORM}, not {shown(text)}", path=name)])
    return metric_of(name.strip(), {"function": function, "direction": direction}, source="--metric")


def metric_of(name: Any, values: Any, *, source: str) -> DeclaredMetric:
    """Return a metric of its name and what a study file would say of it.

    Raises:
        StudyFileError: with every problem found.
    """
    try:
        _NAME.validate_python(name)
    except ValidationError:
        message = f"must be {expected(MetricName)}, not {shown(name)}"
        raise StudyFileError(source, [Problem(message=message, path="")]) from None
    if not isinstance(values, Mapping):
        example = "{function: 'm.py:f1', direction: maximize}"
        message = f"must be a mapping such as {example}, not {shown(values)}"
        raise StudyFileError(source, [Problem(message=message, path=name)])
    try:
        checked = OwnMetric.model_validate(dict(values))
    except ValidationError as error:
        problems = [_problem(name, values, details) for details in error.errors(include_url=False)]
        raise StudyFileError(source, problems) from None
    return DeclaredMetric.from_plain(name, checked.model_dump(mode="json"))


def _problem(name: str, values: Mapping[str, Any], details: Mapping[str, Any]) -> Problem:
    key = str(details["loc"][0]) if details["loc"] else ""
    if details["type"] == "missing":
        message = "is missing"
    elif details["type"] == "value_error":
        message = str(details["ctx"]["error"])
    else:
        kind = OwnMetric.model_fields[key].rebuild_annotation()
        message = f"must be {expected(kind)}, not {shown(values.get(key))}"
    return Problem(message=message, path=f"{name}.{key}" if key else name)

"""Writes a plan as the JSON document that MLflow keeps, and reads it back."""

import dataclasses
import json

from pydantic import TypeAdapter, ValidationError

from ablation.results import Plan

_PLAN = TypeAdapter(Plan)


def plan_to_json(plan: Plan) -> str:
    return json.dumps({"format": 1, **dataclasses.asdict(plan)}, indent=1, allow_nan=False) + "\n"


def plan_from_json(text: str) -> Plan:
    """Read a plan.

    Raises:
        ValueError: the text is not a plan in a known format.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.pop("format", None) != 1:
        raise ValueError("not a plan of format 1")
    try:
        return _PLAN.validate_python(document)
    except ValidationError as error:
        raise ValueError(f"not a plan: {error.error_count()} errors") from error

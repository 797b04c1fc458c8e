"""Writes a plan as the JSON document that MLflow keeps, and reads it back, as what somebody else may have written."""

import dataclasses
import json
import re

from pydantic import TypeAdapter, ValidationError

from ablation.results import RUN_COLUMNS, SIGNS, Plan
from ablation.study.design import DESIGNS

_PLAN = TypeAdapter(Plan)
_FILE_NAME = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f\x7f]{1,200}")
_IDENTITY = re.compile(r"[0-9a-f]{32}")
_LOCKED = ("metric", "questions", "alpha", "seeds", "collapse_margin")


def plan_to_json(plan: Plan) -> str:
    return json.dumps({"format": 1, **dataclasses.asdict(plan)}, indent=1, allow_nan=False) + "\n"


def plan_from_json(text: str) -> Plan:
    """Read a plan.

    Raises:
        ValueError: the text is not a plan in a known format, or its names could lead out of the folders of a study.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or document.pop("format", None) != 1:
        raise ValueError("not a plan of format 1")
    try:
        plan = _PLAN.validate_python(document)
    except ValidationError as error:
        raise ValueError(f"not a plan: {error.error_count()} errors") from error
    problem = _problem(plan)
    if problem is not None:
        raise ValueError(f"not a plan: {problem}")
    return plan


def _problem(plan: Plan) -> str | None:
    """Return what no plan of a checked study has: names that lead elsewhere, runs of no variant, a rule half there."""
    name, names = plan.study.get("name"), {variant.name for variant in plan.variants}
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
        return f"{str(name)[:80]!a} cannot be the name of a study"
    if any(not _IDENTITY.fullmatch(run.identity) for run in plan.runs):
        return "a run's identity is not 32 hexadecimal digits"
    if [variant.is_baseline for variant in plan.variants].count(True) != 1:
        return "it has not one baseline"
    if any(run.variant not in names for run in plan.runs):
        return "it has runs of a variant that it lacks"
    missing = [key for key in _LOCKED if key not in plan.locked]
    if missing:
        return f"its locked part lacks {', '.join(missing)}"
    try:
        hash((plan.heldout_split, plan.is_own_training, *plan.metrics, *plan.expected_metrics))
        hash((DESIGNS[plan.study.get("design", "factorial")], *(SIGNS[one.direction] for one in plan.metrics.values())))
        asked = [name for question in plan.locked["questions"] if (name := question.get("on")) is not None]
        unknown = [name for name in asked if name not in plan.metrics]
    except (AttributeError, KeyError, TypeError):
        return "its study or its locked part is not that of a study file"
    if unknown:
        return f"it asks about {str(unknown[0])[:80]!a}, a metric that this version of ablation does not know"
    taken = [name for name in plan.expected_metrics if name in (*RUN_COLUMNS, *plan.baseline.levels)]
    return f"it compares on {taken[0]!a}, which is a column of every run table" if taken else None

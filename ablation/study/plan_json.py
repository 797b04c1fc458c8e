"""Writes a plan as the JSON document that MLflow keeps, and reads it back, as what somebody else may have written."""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ablation.lookup import is_same
from ablation.records import (
    RUN_COLUMNS,
    Direction,
    Given,
    LockedQuestion,
    MetricEpochs,
    Plan,
    Replicates,
    Settings,
    Variant,
    is_count,
    is_identity,
    is_study_name,
)
from ablation.study.design import DESIGNS
from ablation.study.looks import are_looks
from ablation.study.search_spaces import Tuning
from ablation.study.spec import OTHERS

_PLAN = TypeAdapter(Plan)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Section = dict[str, Any]


class _Part(BaseModel):
    """What readers take from a part of a plan that is plain values; what else is there is of no concern to them."""

    model_config = ConfigDict(allow_inf_nan=False)


class _Sections(_Part):
    data: _Section | Annotated[list[_Section], Field(min_length=1)] | None = None
    model: _Section | None = None
    training: _Section = Field(default_factory=dict)


class _Looks(_Part):
    looks: list[Annotated[int, Field(strict=True)]]


class _Factor(_Part):
    levels: list[Any] | dict[str, dict[str, Any]] | None = None
    label: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)


class _Metric(_Part):
    function: str
    direction: Direction
    unit: str = ""
    given: Given = "outputs"
    epochs: MetricEpochs = "last"


class _Study(_Sections):
    name: str
    description: str = ""
    design: str = "factorial"
    seeds: Annotated[_Count, Field(strict=True)] | list[Annotated[_Count, Field(strict=True)]] | _Looks
    factors: dict[str, list[Any] | _Factor]
    variants: dict[str, _Section] = Field(default_factory=dict)
    metrics: dict[str, Direction | _Metric] = Field(default_factory=dict)
    tune: Tuning | None = None


def plan_to_json(plan: Plan) -> str:
    others = dataclasses.asdict(dataclasses.replace(plan, variants=()))
    others["data"]["shape"] = plan.data.shape.plain()
    for written, other in zip(others["other_data"], plan.other_data, strict=True):
        written["facts"]["shape"] = other.facts.shape.plain()
    for written in (others["data"], *(other["facts"] for other in others["other_data"])):
        if not written["fold_sizes"]:
            del written["fold_sizes"]
    for rare in ("family", "dropped", "metric_code", "takes_model", "other_data"):
        if not others[rare]:
            del others[rare]
    for size in others["summaries"].values():
        if size["trainable"] is None:
            del size["trainable"]
    document = {"format": 1, **others, "variants": list(map(_plain, plan.variants)), "locked": plan.locked.plain()}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _plain(variant: Variant) -> dict[str, Any]:
    values = {each.name: getattr(variant, each.name) for each in dataclasses.fields(variant)}
    return {**values, "settings": variant.settings.plain()}


def plan_from_json(text: str) -> Plan:
    """Read a plan.

    Raises:
        ValueError: the text is not a plan in a known format, or its names could lead out of the folders of a study.
    """
    document = json.loads(text)
    if not isinstance(document, dict) or (kept := document.pop("format", None)) != 1 or isinstance(kept, bool):
        raise ValueError("not a plan of format 1")
    if _SURROGATE.search(json.dumps(document, ensure_ascii=False, allow_nan=False)):
        raise ValueError("not a plan: a text of it is not Unicode")
    try:
        plan = _PLAN.validate_python(_with_settings(document))
        _check_plain_values(plan)
    except ValidationError as error:
        raise ValueError(f"not a plan: {_first(error)}") from error
    except ValueError as error:
        raise ValueError(f"not a plan: {error}") from error
    problem = _problem(plan)
    if problem is not None:
        raise ValueError(f"not a plan: {problem}")
    return plan


def _with_settings(document: dict[str, Any]) -> dict[str, Any]:
    """Return a plan's document with the settings of its variants as records, where it has any.

    Raises:
        ValueError: they are no settings.
    """
    variants = document.get("variants")
    if not isinstance(variants, list):
        return document
    read = [
        {**variant, "settings": Settings.from_plain(variant["settings"], path=f"variants.{index}.settings")}
        if isinstance(variant, dict) and "settings" in variant
        else variant
        for index, variant in enumerate(variants)
    ]
    return {**document, "variants": read}


def _check_plain_values(plan: Plan) -> None:
    """Raise ValidationError where what is plain values in a plan is not what readers take from them."""
    study = {**({"seeds": 1} if plan.replicates is not None else {}), **plan.study}  # folds take their place
    _Study.model_validate_json(json.dumps(study))  # as JSON, which has lists where spaces have pairs
    for variant in plan.variants:
        _Sections.model_validate(variant.configuration)


def _first(error: ValidationError) -> str:
    """Return the first of the errors, with where it is, and how many more there are."""
    first, *others = error.errors(include_url=False, include_input=False)
    more = f" (and {len(others)} more)" if others else ""
    return f"{first['msg']} @ {'.'.join(map(str, first['loc']))[:200]}{more}"


def _problem(plan: Plan) -> str | None:
    """Return what no plan of a checked study has: names that lead elsewhere, runs of no variant, a rule half there."""
    name, names = plan.study.get("name"), {variant.name for variant in plan.variants}
    if not isinstance(name, str) or not is_study_name(name):
        return f"{str(name)[:80]!a} cannot be the name of a study"
    if any(not is_identity(run.identity) for run in plan.runs):
        return "a run's identity is not 32 hexadecimal digits"
    if [variant.is_baseline for variant in plan.variants].count(True) != 1:
        return "it must have exactly one baseline"
    if any(run.variant not in names for run in plan.runs):
        return "it has runs of a variant that it lacks"
    of_others = [variant for other in plan.other_data for variant in other.variants]
    if len(set(of_others)) < len(of_others) or not names.issuperset(of_others):
        return "it has data of a variant that it lacks, or twice of one"
    if names - plan.summaries.keys():
        return "it lacks the model of a variant"
    if any(variant.levels.keys() != plan.baseline.levels.keys() for variant in plan.variants):
        return "its variants have not the same factors"
    if (design := plan.study.get("design", "factorial")) not in DESIGNS:
        return f"it has the design {design[:80]!a}, which this version of ablation does not know"
    asked = [question.on for question in plan.every_question if question.on is not None]
    if unknown := [name for name in asked if name not in plan.metrics]:
        return f"it asks about {unknown[0][:80]!a}, a metric that this version of ablation does not know"
    if (problem := next(_problems_of_parts(plan), None)) is not None:
        return problem
    taken = [name for name in plan.expected_metrics if name in (*RUN_COLUMNS, *plan.baseline.levels)]
    return f"it compares on {taken[0]!a}, which is a column of every run table" if taken else None


def _problems_of_parts(plan: Plan) -> Iterator[str]:
    """Yield what of a plan's parts does not fit together, as far as a reader would stumble over it."""
    sizes = [size for each in plan.summaries.values() for size in (each.parameters, each.flops, each.trainable or 0)]
    numbers = [number for each in plan.tuning for number in (each.chosen, *(trial.number for trial in each.trials))]
    if not all(map(is_count, (*sizes, *numbers, plan.locked.seeds, *(run.seed for run in plan.runs)))):
        yield "a number of it is negative, or larger than any count"
    if not 0 < plan.locked.alpha < 1:
        yield f"its alpha is {plan.locked.alpha}, which is not between 0 and 1"
    seeds = {variant.name: {run.seed for run in plan.runs if run.variant == variant.name} for variant in plan.variants}
    if any(found != seeds[plan.baseline.name] for found in seeds.values()) or not seeds[plan.baseline.name]:
        yield "its variants have not the same seeds"
    yield from _problems_of_looks(plan) if plan.replicates is None else _problems_of_folds(plan, plan.replicates)
    tune = plan.study.get("tune")
    if (tune or plan.tuning) and "trials" not in (tune or {}):
        yield "its tuning has no number of trials"
    if any(each.chosen not in {trial.number for trial in each.trials} for each in plan.tuning):
        yield "a tuned variant lacks the trial that was chosen"
    if not plan.locked.questions or not all(_can_be_asked(question, plan) for question in plan.every_question):
        yield "it has no question, or one about what the study has not"


def _problems_of_looks(plan: Plan) -> Iterator[str]:
    """Yield what of a plan's looks no checked study has: those that were locked, and those of the study now."""
    locked, planned = plan.locked, {run.seed for run in plan.runs}
    if locked.looks and not (are_looks(locked.looks) and locked.looks[-1] == locked.seeds):
        yield f"its locked looks, {_numbers(locked.looks)}, are not those of a study of {locked.seeds} seeds"
    of_variants = any(variant.settings.replicates is not None for variant in plan.variants)
    if of_variants or plan.study.get("replicates") or any(data.fold_sizes for data in plan.data_sets):
        yield "it has folds that were not locked"
    if locked.seed_indices and (
        locked.looks or len(locked.seed_indices) != locked.seeds or len(set(locked.seed_indices)) != locked.seeds
    ):
        yield f"its locked seeds, {_numbers(locked.seed_indices)}, are not those of a study of {locked.seeds} seeds"
    if isinstance(plan.study["seeds"], list) and sorted(plan.study["seeds"]) != sorted(planned):
        yield f"its seeds, {_numbers(plan.study['seeds'])}, are not those of its runs"
    if isinstance(plan.study["seeds"], dict) and not (are_looks(plan.looks) and planned == set(range(plan.looks[-1]))):
        yield f"its looks, {_numbers(plan.looks)}, are not those of a study of {len(planned)} seeds"


def _problems_of_folds(plan: Plan, replicates: Replicates) -> Iterator[str]:
    """Yield what of a plan's folds no checked study has."""
    locked, sizes = plan.locked, [data.fold_sizes for data in plan.data_sets]
    named = [locked.replicates, *(variant.settings.replicates for variant in plan.variants)]
    if any(each != replicates for each in named) or plan.study.get("replicates") != replicates.plain():
        yield "its variants have not the same folds, or others than were locked"
    elif "seeds" in plan.study or locked.looks or locked.seed_indices or locked.seeds != replicates.count:
        yield f"its seeds are not those of {replicates}"
    elif {run.seed for run in plan.runs} != set(range(replicates.count)) or any(
        len(own) != replicates.count for own in sizes
    ):
        yield f"its runs are not those of {replicates}"
    elif not all(is_count(number) and number for own in sizes for pair in own for number in pair):
        yield "a fold of it has no examples"


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))[:80]


def _can_be_asked(question: LockedQuestion, plan: Plan) -> bool:
    """Whether what a question names is there: a listed variant, or factors."""
    at, known = question.at.items(), {*plan.baseline.levels, OTHERS}
    if not any(all(is_same(level, each.levels.get(name)) for name, level in at) for each in plan.variants):
        return False
    if question.variant:
        return any(variant.name.partition(",")[0] == question.variant for variant in plan.variants)
    return bool(question.factors) and known.issuperset(question.factors)

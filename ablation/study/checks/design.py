"""Checks a study file's design, forbidden combinations and questions, and that no two variants are the same."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablation.lookup import did_you_mean, is_same
from ablation.records import DATA, TASKS, Variant
from ablation.study.comparisons import comparisons
from ablation.study.conditions import circle, combinations, conditions_of, requirements, settled
from ablation.study.design import (
    asked_questions,
    declared_levels,
    is_forbidden,
    variants_of,
)
from ablation.study.factors import has_label, levels_of
from ablation.study.file import MAX_SHOWN, Location, shown
from ablation.study.level_names import NOT_VARIED, level_text
from ablation.study.search_spaces import FROM_FILE, SETTINGS, TUNED
from ablation.study.spec import MAX_VARIANTS, OTHERS, PART_DESIGNS, Question, StudySpec, task_of

Found = tuple[Location, str]
MAX_VARIANT_NAME = 4_000
"""Characters of a variant's name: trackers keep it as a tag, of 5,000 at most."""


def asked_factors(question: Any) -> list[Any]:
    """Return the factors that an unchecked question is about."""
    asked = question if isinstance(question, Mapping) else {}
    pair = asked.get("interaction")
    effects = [asked["effect"]] if asked.get("effect") is not None else []
    return [*effects, *(pair if isinstance(pair, list | tuple) else [])]


def design_problems(values: Mapping[str, Any], *, data: Sequence[str] = ()) -> Iterator[Found]:
    design, listed, factors = values.get("design", "factorial"), values.get("variants"), _levels(values, data)
    if design == "listed" and not listed:
        yield ("variants",), "is missing: design listed needs them; for example `variants: {small: {model.depth: 2}}`"
    if design != "listed" and listed:
        yield ("variants",), f"are for design listed; this study's is {design}"
    for name, levels in factors.items():
        if design in PART_DESIGNS and len(levels) > 2 and name not in (DATA, SETTINGS):
            yield (
                ("factors", name),
                f"design {design} needs factors of two levels, the part there or not; it has {len(levels)}",
            )
    for name, changed in listed.items() if isinstance(listed, Mapping) else ():
        here: Location = ("variants", name, "levels") if has_label(changed) else ("variants", name)
        varied = {factor: levels for factor, levels in factors.items() if factor != DATA}
        yield from _assignment_problems(here, changed["levels"] if has_label(changed) else changed, varied)
        if name == "baseline":
            yield ("variants", name), "the baseline is always in, and no other variant may have its name"
    forbidden = values.get("forbid")
    for index, combination in enumerate(forbidden if isinstance(forbidden, tuple) else ()):
        yield from _assignment_problems(("forbid", index), combination, factors)


def question_problems(values: Mapping[str, Any], *, data: Sequence[str] = ()) -> Iterator[Found]:
    factors, questions = _levels(values, data), values.get("questions")
    chosen = values.get("metric")
    usual = TASKS[task_of(values)].default_metric
    metric = chosen.get("name", usual) if isinstance(chosen, Mapping) else usual
    seen: list[Any] = []
    for index, question in enumerate(questions if isinstance(questions, tuple) else ()):
        if not isinstance(question, Mapping):
            continue
        here: Location = ("questions", index)
        asked = asked_factors(question)
        for factor in asked:
            key = "effect" if factor == question.get("effect") else "interaction"
            is_gap = factor == OTHERS and values.get("design") == "leave-one-out+add-one" and key == "interaction"
            is_known = (
                not isinstance(factor, str) or factor in factors or not isinstance(values.get("factors"), Mapping)
            )
            if not is_known and not is_gap:
                yield (*here, key), f"{shown(factor)} is not a factor of this study{did_you_mean(factor, factors)}"
        variant, variants = question.get("variant"), values.get("variants")
        listed = variants if isinstance(variants, Mapping) else {}
        if isinstance(variant, str) and variant not in listed:
            near = did_you_mean(variant, listed)
            yield (*here, "variant"), f"{shown(variant)} is not a listed variant of this study{near}"
        yield from _assignment_problems((*here, "at"), question.get("at", {}), factors)
        yield from _at_problems((*here, "at"), question.get("at"), asked)
        yield from _place_problems(here, asked, question.get("at"), values)
        yield from _pair_problems((*here, "levels"), question, factors)
        subject = (
            [
                sorted(map(str, asked)),
                *(str(question.get(key)) for key in ("variant", "at")),
                str(question["levels"]) if question.get("levels") is not None else "",
                question.get("on") or metric,
            ]
            if asked or question.get("variant")
            else question
        )
        if subject in seen:
            yield here, "asks what a question before it asks"
        seen.append(subject)


def made_variants(spec: StudySpec) -> tuple[tuple[Variant, ...], dict[Location, str]]:
    """Return the variants, the baseline first, or why they cannot be told apart or answer what is asked."""
    if spec.design == "factorial" and (count := _count(spec)) is not None:
        return (), {("factors",): f"make {count} variants; a study has at most {MAX_VARIANTS}"}
    variants = variants_of(spec)
    if len(variants) > MAX_VARIANTS:
        return (), {("factors",): f"make {len(variants)} variants; a study has at most {MAX_VARIANTS}"}
    named = dict(_name_problems(spec, variants))
    found = named or dict(_forbid_problems(spec)) | _listed_problems(spec) | _twin_problems(variants)
    return variants, found or dict(_unanswerable(spec, variants)) or dict(_asked_twice(spec, variants))


def _count(spec: StudySpec) -> str | None:
    """Return how many variants a factorial has where they are too many."""
    times = max(1, len(spec.data_sets))
    if not spec.conditions:
        count = times * math.prod(map(len, spec.levels.values()))
        return str(count) if count > MAX_VARIANTS else None
    some = itertools.islice(combinations(spec.levels, spec.conditions), MAX_VARIANTS + 1)
    return f"more than {MAX_VARIANTS}" if times * sum(1 for _ in some) > MAX_VARIANTS else None


def _levels(values: Mapping[str, Any], data: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return the levels of every factor of unchecked values; none of what is no list."""
    factors, tune = values.get("factors"), values.get("tune")
    found: dict[str, tuple[Any, ...]] = {}
    for name, factor in factors.items() if isinstance(factors, Mapping) else ():
        if isinstance(factor, Mapping | tuple):
            found[name] = levels_of(factor)
    if data:
        found[DATA] = tuple(data)
    if isinstance(tune, Mapping) and tune.get("also_untuned") is True:
        found[SETTINGS] = (TUNED, FROM_FILE)
    return found


def _assignment_problems(here: Location, assignment: Any, factors: Mapping[str, Sequence[Any]]) -> Iterator[Found]:
    for name, level in assignment.items() if isinstance(assignment, Mapping) else ():
        if name not in factors:
            yield (*here, name), f"{shown(name)} is not a factor of this study{did_you_mean(str(name), factors)}"
        elif not any(is_same(level, known) for known in factors[name]):
            yield (*here, name), f"{shown(level)} is none of its levels: {', '.join(map(shown, factors[name]))}"


def _at_problems(here: Location, at: Any, asked: Sequence[Any]) -> Iterator[Found]:
    for name in at if isinstance(at, Mapping) else ():
        if name in asked:
            yield (*here, name), f"{shown(name)} is what the question is about"


def _place_problems(here: Location, asked: Sequence[Any], at: Any, values: Mapping[str, Any]) -> Iterator[Found]:
    """Refuse to ask about a factor where it does not vary, and about two of which one never varies beside the other."""
    factors = values.get("factors")
    conditions = conditions_of(factors)
    if circle(conditions) or not isinstance(factors, Mapping):
        return
    for factor in asked:
        needed = requirements(factor, conditions) if isinstance(factor, str) else {}
        for name, allowed in needed.items():
            levels = [level for level in levels_of(factors.get(name)) if any(is_same(level, each) for each in allowed)]
            only = f"{factor} varies only where {name} is {' or '.join(map(shown, allowed))}"
            given = at.get(name, NOT_VARIED) if isinstance(at, Mapping) else NOT_VARIED
            if given != NOT_VARIED and not any(is_same(given, each) for each in allowed):
                yield (*here, "at", name), f"{only}, so it has no effect at {shown(given)}"
            if name in asked and len(levels) < 2:
                yield (*here, "interaction"), f"{only}, so there is nothing of {name} that it could depend on"


def _pair_problems(
    here: Location, question: Mapping[str, Any], factors: Mapping[str, Sequence[Any]]
) -> Iterator[Found]:
    """Refuse levels to compare that are none of the factor's, or the same, and those of what is not asked about."""
    given, asked = question.get("levels"), asked_factors(question)
    if given is None:
        return
    if not asked:
        yield here, "stand beside an effect or an interaction: they are two levels of its factor"
        return
    if len(asked) > 1 and not isinstance(given, Mapping):
        example = "{levels: {model.depth: [2, 3]}}"
        yield here, f"an interaction has two factors: name the one that has these levels, as in {example}"
        return
    for factor, pair in given.items() if isinstance(given, Mapping) else [(str(asked[0]), given)]:
        place: Location = (*here, factor) if isinstance(given, Mapping) else here
        if factor not in asked or factor == OTHERS:
            yield place, f"{shown(factor)} is none of the factors that the question is about"
            continue
        known = factors.get(factor, ())
        for index, level in enumerate(pair if isinstance(pair, tuple) and factor in factors else ()):
            if not any(is_same(level, each) for each in known):
                yield (*place, index), f"{shown(level)} is none of its levels: {', '.join(map(shown, known))}"
        if isinstance(pair, tuple) and len(pair) == 2 and is_same(*pair):
            yield place, f"compares {shown(pair[0])} with itself; give two different levels"


def _forbid_problems(spec: StudySpec) -> Iterator[Found]:
    everything = variants_of(spec.model_copy(update={"forbid": ()}))
    if is_forbidden(spec.baseline_assignment, spec.forbid):
        yield ("forbid",), "forbids the baseline, which every variant is compared with"
    for index, combination in enumerate(spec.forbid):
        if not any(is_forbidden(_tuples(variant.levels), [combination]) for variant in everything):
            yield ("forbid", index), "matches no variant of this design: nothing is forbidden by it"


def _listed_problems(spec: StudySpec) -> dict[Location, str]:
    found: dict[Location, str] = {}
    seen: list[tuple[str, dict[str, Any]]] = [("baseline", spec.baseline_levels())]
    for name, changed in spec.listed.items() if spec.design == "listed" else ():
        levels = settled({**spec.baseline_levels(), **changed}, spec.levels, spec.conditions)
        lost = next((factor for factor, level in changed.items() if levels[factor] == NOT_VARIED), None)
        if lost is not None:
            needed = " and ".join(
                f"{other} is {' or '.join(map(shown, each))}" for other, each in spec.conditions[lost].items()
            )
            found["variants", name] = f"{lost} varies only where {needed}; set that too, or leave {lost} out"
        twin = next((other for other, known in seen if known == levels), None)
        if twin is not None and lost is None:
            found["variants", name] = f"is the same as {twin}: no factor differs"
        seen.append((name, levels))
    return found


def _name_problems(spec: StudySpec, variants: Sequence[Variant]) -> Iterator[Found]:
    """Name a variant whose name is another's too, and one whose name no tracker keeps whole."""
    here: Location = ("variants",) if spec.design == "listed" else ("factors",)
    way_out = "choose shorter or other levels, or name the variants yourself (design: listed)"
    first: dict[str, Variant] = {}
    for variant in variants:
        twin = first.setdefault(variant.name, variant)
        if twin is not variant:
            both = " and ".join(shown({name: each.levels[name] for name in each.levels}) for each in (twin, variant))
            yield here, f"two variants are both called {variant.name[:MAX_SHOWN]}: {both}; {way_out}"
        if len(variant.name) > MAX_VARIANT_NAME:
            name = f"{variant.name[:MAX_SHOWN]}…"
            limit = f"at most {MAX_VARIANT_NAME} are kept"
            yield here, f"the name of variant {name} has {len(variant.name)} characters; {limit}: {way_out}"


def _twin_problems(variants: Sequence[Variant]) -> dict[Location, str]:
    """Name, for each factor that makes no difference somewhere, one pair of variants that it leaves the same."""
    first: dict[str, Variant] = {}
    found: dict[Location, str] = {}
    for variant in variants:
        beside = [variant.levels.get(factor) for factor in (DATA, SETTINGS)]  # data may differ in its root alone
        twin = first.setdefault(repr((variant.configuration, beside)), variant)
        idle = [path for path, level in variant.levels.items() if level != twin.levels[path]]
        if idle:
            pair = f"variants {twin.name} and {variant.name} resolve to the same configuration"
            found.setdefault(("factors", idle[-1]), f"{pair}: nothing there depends on {' or '.join(idle)}")
    return found


def _unanswerable(spec: StudySpec, variants: Sequence[Variant]) -> Iterator[Found]:
    """Name the questions that no variants of the design can answer."""
    asked, order = asked_questions(spec), _order(spec, variants)
    for index, question in enumerate(asked):
        if question.variant is not None or _is_answerable(question, variants, order, spec):
            continue
        here: Location = ("questions", index % len(spec.questions)) if spec.questions else ("design",)
        named = " and ".join(question.factors)
        yield here, f"no variants of this design differ in {named} alone, at each of the levels compared"


def _order(spec: StudySpec, variants: Sequence[Variant]) -> dict[str, list[Any]]:
    """Return each factor's levels, the baseline's first."""
    declared = declared_levels(spec.document())
    return {factor: _baseline_first(levels, variants[0].levels[factor]) for factor, levels in declared.items()}


def _asked_twice(spec: StudySpec, variants: Sequence[Variant]) -> Iterator[Found]:
    """Name a question between two levels that another compares too, in whichever order."""
    order, seen = _order(spec, variants), dict[str, int]()
    if not any(question.levels for question in spec.questions):
        return
    for index, question in enumerate(asked_questions(spec)):
        locked = question.locked()
        found = comparisons(locked, variants, levels=order, design=spec.design, conditions=spec.conditions)
        for comparison in found:
            pairs = [
                (change.factor, sorted(map(level_text, (change.before, change.after)))) for change in comparison.changes
            ]
            key = repr((sorted(pairs), dict(locked.at), question.on or spec.metric.name))
            if seen.setdefault(key, index) != index and (question.levels or spec.questions[seen[key]].levels):
                levels = " and ".join(" with ".join(own) for _, own in pairs)
                here: Location = ("questions", index % len(spec.questions))
                yield here, f"compares {levels}, as question {seen[key] + 1} does; ask it once"


def _is_answerable(
    question: Question, variants: Sequence[Variant], order: Mapping[str, Sequence[Any]], spec: StudySpec
) -> bool:
    found = comparisons(question.locked(), variants, levels=order, design=spec.design, conditions=spec.conditions)
    return all(comparison.groups for comparison in found)


def _baseline_first(levels: Sequence[Any], baseline: Any) -> list[Any]:
    return [*([baseline] if baseline != NOT_VARIED else []), *(level for level in levels if level != baseline)]


def _tuples(levels: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(level) if isinstance(level, list) else level for name, level in levels.items()}

"""The forms that a factor may have in a study file: levels of a setting, recipes of several, or a part of the model.

Variants know a level by its name: a setting's level by its value, a recipe's and one that needs a label by their names.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag, field_serializer, model_validator

from ablation.study.file import Location, read_value, value_text
from ablation.study.labels import LABEL_FORM, label_problem
from ablation.study.level_names import level_text, needs_label
from ablation.study.sections import Patterns, Replacements, Section

T = TypeVar("T")

MAX_LEVELS = 100
FORM_KEYS = ("remove", "replace", "levels", "label", "labels", "when")
"""Keys that say what a factor is, so no level of a recipe is called so."""
RECIPE_EXAMPLE = "`{adam: {training.optimizer: adam}, sgd: {training.optimizer: sgd, training.learning_rate: 0.1}}`"


def _printable(level: T) -> T:
    """Refuse what no database and no name of a run takes; levels stand in names."""
    if not all(text.isprintable() for text in _texts(level)):
        raise ValueError(f"a level stands in names, so it has no control characters; {value_text(level)} has")
    return level


def _texts(value: Any) -> Iterator[str]:
    """Yield all texts in a plain value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.items():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _is_label(text: str) -> str:
    problem = label_problem(text)
    if problem is not None:
        raise ValueError(problem)
    return text


Scalar = bool | int | float | str | None
Level = Annotated[
    Scalar | tuple[Scalar, ...],
    AfterValidator(_printable),
    "a number, a printable word, true, false, null or a list of these; a mapping by its label",
]
"""A level as variants know it: one that needs a label stands here by that."""
AnyLevel = Annotated[
    Any, AfterValidator(_printable), "a number, a printable word, true, false, null, or a list or mapping of these"
]
Levels = Annotated[
    tuple[AnyLevel, ...], Field(min_length=2, max_length=MAX_LEVELS), f"a list of 2 to {MAX_LEVELS} levels"
]
FactorPath = Annotated[str, "the path of a factor, such as model.depth"]
Assignment = Annotated[dict[FactorPath, Level], "a mapping of factors to levels, such as {model.depth: 4}"]
Label = Annotated[str, AfterValidator(_is_label), LABEL_FORM]
Labels = Annotated[
    dict[str, Label],
    "a mapping of levels to labels, such as {none: no norm, batch: BN}, or a list of a label or null for each level",
]
Recipe = Annotated[
    dict[str, Annotated[dict[str, Any], "a mapping of settings to values, such as {training.optimizer: sgd}"]],
    Field(min_length=2, max_length=MAX_LEVELS),
    f"a mapping of levels to the settings of each, such as {RECIPE_EXAMPLE}",
]
"""What each level sets, by paths into the study file."""


When = Annotated[
    dict[str, AnyLevel],
    Field(min_length=1),
    "a mapping of other factors to a level, or a list of levels, beside which this one varies, such as "
    "{model.normalization: group}",
]


class LabelledFactor(Section):
    """Levels, and what people call them and the factor; a label alters no result and no name of a run.

    It varies only beside the levels of other factors that `when` has.
    """

    levels: Levels
    when: When = Field(default={})
    label: Label | None = None
    labels: Labels = Field(default={})

    @field_serializer("labels")
    def _by_names(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Write a level as it stands in names: `1e-3` as `0.001`."""
        return labels_by_level(labels, self.levels)


class LabelledRecipe(Section):
    """A recipe, what people call its levels and the factor, and beside which levels of others it varies."""

    levels: Recipe
    when: When = Field(default={})
    label: Label | None = None
    labels: Labels = Field(default={})


def part_levels(factor: Mapping[str, Any]) -> tuple[str, str]:
    """Return the levels of a part, the baseline's first, from its plain values."""
    return ("present", "absent") if factor.get("remove") else ("original", "replaced")


class ComponentFactor(Section):
    """A part of the model as a factor: modules by name, which are removed or replaced where the part is absent."""

    remove: Patterns = ()
    replace: Replacements = Field(default={})
    when: When = Field(default={})
    label: Label | None = None

    @model_validator(mode="after")
    def _names_a_part(self) -> "ComponentFactor":
        if not self.remove and not self.replace:
            raise ValueError("needs `remove: [NAME, ...]` or `replace: {NAME: CLASS}`")
        return self

    @property
    def levels(self) -> tuple[str, str]:
        """The baseline's level and the other."""
        return part_levels({"remove": self.remove})


def level_names(factor: "Factor") -> tuple[Any, ...]:
    """Return the levels of a checked factor, as variants know them; of a component, the baseline's first."""
    if isinstance(factor, LabelledFactor):
        return named_levels(factor.levels, factor.labels)
    return tuple(factor if isinstance(factor, tuple | dict) else factor.levels)


def levels_with_settings(name: str, factor: "Factor") -> list[tuple[Any, Mapping[str, Any]]]:
    """Return the levels of a checked factor, which is no part, with the settings of each by their paths."""
    levels = factor if isinstance(factor, tuple | dict) else factor.levels
    if isinstance(levels, dict):
        return list(levels.items())
    return [(known, {name: level}) for known, level in zip(level_names(factor), levels, strict=True)]


def named_levels(levels: Sequence[Any], labels: Any) -> tuple[Any, ...]:
    """Return the levels of a setting as variants know them: those that need a label by it, where they have one."""
    known = labels_by_level(labels, levels)
    return tuple(known.get(level_text(level), level_text(level)) if needs_label(level) else level for level in levels)


def labels_by_level(labels: Any, levels: Sequence[Any]) -> dict[str, Any]:
    """Return the labels of unchecked values by the levels' texts; of a list, those that are there."""
    texts = [level_text(level) for level in levels]
    if isinstance(labels, Mapping):
        return {labelled_level(str(key), levels) or str(key): label for key, label in labels.items()}
    given = labels if isinstance(labels, list | tuple) and len(labels) == len(texts) else ()
    return {text: label for text, label in zip(texts, given, strict=False) if label is not None}


def with_labels_by_level(factors: Any) -> Any:
    """Return a study's factors with lists of labels written as mappings; of unchecked values."""

    def written(factor: Any) -> Any:
        levels = factor.get("levels") if isinstance(factor, Mapping) else None
        labels = factor.get("labels") if isinstance(factor, Mapping) else None
        if not isinstance(labels, list | tuple) or not isinstance(levels, list | tuple | Mapping):
            return factor
        return {**factor, "labels": labels_by_level(labels, [*levels])} if len(labels) == len(levels) else factor

    return {name: written(factor) for name, factor in factors.items()} if isinstance(factors, Mapping) else factors


def labelled_level(key: str, levels: Sequence[Any]) -> str | None:
    """Return the level, as it stands in names, that a key of `labels` means: `0.001`, `1e-3`, `[128, 64]`."""
    known = {level_text(level) for level in levels}
    if key in known:
        return key
    try:
        text = level_text(read_value(key))
    except ValueError:
        return None
    return text if text in known else None


class LabelledVariant(Section):
    """What a listed variant has otherwise than the baseline, and what people call it."""

    levels: Assignment
    label: Label | None = None


Listed = Annotated[
    Annotated[Assignment, Tag("assignment")] | Annotated[LabelledVariant, Tag("labelled")],
    Discriminator(lambda value: "labelled" if isinstance(value, LabelledVariant) or has_label(value) else "assignment"),
    "a mapping of factors to levels, such as {model.depth: 4}, or {levels: {model.depth: 4}, label: deep}",
]


def has_label(variant: Any) -> bool:
    """Whether a listed variant's plain values are its levels and its label: no factor is a mapping."""
    return isinstance(variant, Mapping) and isinstance(variant.get("levels"), Mapping)


def recipe_of(factor: Any) -> Mapping[str, Any] | None:
    """Return what each level of a recipe sets, from a factor's plain values; None where it is no recipe."""
    if not isinstance(factor, Mapping):
        return None
    if "levels" in factor:
        return levels if isinstance(levels := factor["levels"], Mapping) else None
    is_recipe = any(isinstance(value, Mapping) for key, value in factor.items() if key not in FORM_KEYS)
    return factor if is_recipe else None


def is_part(factor: Any) -> bool:
    """Whether a factor's plain values name modules of the model."""
    return isinstance(factor, Mapping) and "levels" not in factor and recipe_of(factor) is None


def levels_of(factor: Any) -> tuple[Any, ...]:
    """Return the levels in a factor's plain values, as variants know them; none of what is no factor."""
    if is_part(factor):
        return part_levels(factor)
    if (recipe := recipe_of(factor)) is not None:
        return tuple(recipe)
    levels, labels = (factor.get("levels"), factor.get("labels")) if isinstance(factor, Mapping) else (factor, {})
    return named_levels(levels, labels) if isinstance(levels, list | tuple) else ()


def written_levels(factor: Any) -> tuple[Any, ...]:
    """Return the levels in a factor's plain values as they are written, a recipe's and a part's by their names."""
    levels = factor.get("levels") if isinstance(factor, Mapping) else factor
    return tuple(levels) if isinstance(levels, list | tuple) else levels_of(factor)


def levels_location(name: str, factor: Any) -> Location:
    """Return where a factor's levels stand in a study file."""
    is_labelled = isinstance(factor, Mapping) and "levels" in factor
    return ("factors", name, "levels") if is_labelled else ("factors", name)


def recipe_settings(factors: Any) -> Iterator[tuple[Location, Mapping[str, Any]]]:
    """Yield what each level of a study's recipes sets, and where that stands; of unchecked values."""
    for name, factor in factors.items() if isinstance(factors, Mapping) else ():
        for level, settings in (recipe_of(factor) or {}).items():
            if isinstance(settings, Mapping):
                yield (*levels_location(name, factor), level), settings


def varied_settings(factors: Any) -> Iterator[tuple[Location, str, Any]]:
    """Yield where each setting that a study's factors vary is given a value, its path and that value."""
    for name, factor in factors.items() if isinstance(factors, Mapping) else ():
        levels = factor.get("levels") if isinstance(factor, Mapping) else factor
        for index, level in enumerate(levels if isinstance(levels, list | tuple) else ()):
            yield (*levels_location(name, factor), index), name, level
    for here, settings in recipe_settings(factors):
        for path, value in settings.items():
            yield (*here, path), path, value


def _form(factor: Any) -> str:
    if isinstance(factor, ComponentFactor) or is_part(factor):
        return "component"
    if isinstance(factor, LabelledRecipe):
        return "labelled recipe"
    if recipe_of(factor) is not None:
        return "labelled recipe" if "levels" in factor else "recipe"
    return "labelled" if isinstance(factor, Mapping | LabelledFactor) else "levels"


Factor = Annotated[
    Annotated[Levels, Tag("levels")]
    | Annotated[LabelledFactor, Tag("labelled")]
    | Annotated[Recipe, Tag("recipe")]
    | Annotated[LabelledRecipe, Tag("labelled recipe")]
    | Annotated[ComponentFactor, Tag("component")],
    Discriminator(_form),
    "a list of levels, levels with labels as `{levels: [LEVEL, LEVEL], label: TEXT}`, levels that set several settings "
    f"as {RECIPE_EXAMPLE}, or modules of the model as `{{remove: [NAME]}}` or `{{replace: {{NAME: CLASS}}}}`",
]

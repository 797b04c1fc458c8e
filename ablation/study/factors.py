"""The forms that a factor may have in a study file: levels, levels with labels, or a part of the model."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag, field_serializer, model_validator

from ablation.study.file import read_value, value_text
from ablation.study.labels import LABEL_FORM, label_problem
from ablation.study.level_names import level_text
from ablation.study.sections import Patterns, Replacements, Section

T = TypeVar("T")

MAX_LEVELS = 100


def _printable(level: T) -> T:
    """Refuse what no database and no name of a run takes; levels stand in names."""
    if not all(str(part).isprintable() for part in (level if isinstance(level, tuple) else (level,))):
        raise ValueError(f"a level stands in names, so it has no control characters; {value_text(level)} has")
    return level


def _is_label(text: str) -> str:
    problem = label_problem(text)
    if problem is not None:
        raise ValueError(problem)
    return text


Level = Annotated[
    bool | int | float | str | tuple[bool | int | float | str, ...],
    AfterValidator(_printable),
    "a number, a printable word, true, false or a list of numbers or printable words",
]
Levels = Annotated[tuple[Level, ...], Field(min_length=2, max_length=MAX_LEVELS), f"a list of 2 to {MAX_LEVELS} levels"]
FactorPath = Annotated[str, "the path of a factor, such as model.depth"]
Assignment = Annotated[dict[FactorPath, Level], "a mapping of factors to levels, such as {model.depth: 4}"]
Label = Annotated[str, AfterValidator(_is_label), LABEL_FORM]


class LabelledFactor(Section):
    """Levels, and what people call them and the factor; a label alters no result and no name of a run."""

    levels: Levels
    label: Label | None = None
    labels: Annotated[dict[str, Label], "a mapping of levels to labels, such as {none: no norm, batch: BN}"] = Field(
        default={}
    )

    @field_serializer("labels")
    def _by_names(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Write a level as it stands in names: `1e-3` as `0.001`."""
        return {labelled_level(key, self.levels) or key: label for key, label in labels.items()}


def part_levels(factor: Mapping[str, Any]) -> tuple[str, str]:
    """Return the levels of a part, the baseline's first, from its plain values."""
    return ("present", "absent") if factor.get("remove") else ("original", "replaced")


class ComponentFactor(Section):
    """A part of the model as a factor: modules by name, which are removed or replaced where the part is absent."""

    remove: Patterns = ()
    replace: Replacements = Field(default={})
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


def is_part(factor: Any) -> bool:
    """Whether a factor's plain values name modules of the model."""
    return isinstance(factor, Mapping) and "levels" not in factor


def levels_of(factor: Any) -> tuple[Any, ...]:
    """Return the levels in a factor's plain values; none of what is no factor."""
    if is_part(factor):
        return part_levels(factor)
    levels = factor["levels"] if isinstance(factor, Mapping) else factor
    return tuple(levels) if isinstance(levels, list | tuple) else ()


def _form(factor: Any) -> str:
    if isinstance(factor, ComponentFactor) or is_part(factor):
        return "component"
    return "labelled" if isinstance(factor, Mapping | LabelledFactor) else "levels"


Factor = Annotated[
    Annotated[Levels, Tag("levels")]
    | Annotated[LabelledFactor, Tag("labelled")]
    | Annotated[ComponentFactor, Tag("component")],
    Discriminator(_form),
    "a list of levels, levels with labels as `{levels: [LEVEL, LEVEL], label: TEXT}`, or modules of the model as "
    "`{remove: [NAME]}` or `{replace: {NAME: CLASS}}`",
]

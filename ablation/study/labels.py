"""What people call a study's factors, levels and variants: by the labels of its file, which alter no name of a run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablation.records import DATA, Plan, Variant
from ablation.study.level_names import level_text, short_name, short_names, varied
from ablation.study.search_spaces import SETTINGS

MOST_LETTERS = 40
LABEL_FORM = f"one line of text of at most {MOST_LETTERS} characters"


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorLabels:
    """What a factor is called, None where by its name, and its levels by their texts, as far as they have labels."""

    label: str | None
    levels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The factors that have labels, by path, and the variants that are called otherwise for that, by name."""

    factors: Mapping[str, FactorLabels]
    variants: Mapping[str, str]

    def factor(self, path: str) -> str:
        """Return a factor's label, or the path as it is."""
        return (self.factors[path].label if path in self.factors else None) or path

    def level(self, path: str, level: Any) -> Any:
        """Return the label of a factor's level, or the level as it is."""
        return self.factors[path].levels.get(level_text(level), level) if path in self.factors else level

    def variant(self, name: str) -> str:
        """Return what a variant is called: `norm=BN, depth=3`."""
        return self.variants.get(name, name)


NO_LABELS = Labels(factors={}, variants={})


def label_problem(text: str) -> str | None:
    """Return why a text cannot be a label, or None."""
    if not text.strip() or len(text) > MOST_LETTERS:
        return f"a label is {LABEL_FORM}; this one has {len(text) if text.strip() else 'none'}"
    odd = next((letter for letter in text if not letter.isprintable()), None)
    if odd is not None:
        return f"a label is one line of printable text; this one has U+{ord(odd):04X}"
    if text != text.strip():
        return "a label has no spaces at its ends"
    is_path = short_name(text) != text
    return "a label is what people read, and no path into the study file" if is_path else None


def labels_of(plan: Plan) -> Labels:
    """Return the labels of a plan's study file, and what its variants are called.

    Those of a plan that somebody else wrote may give two things one name: then nothing has a label.
    """
    found = file_labels(plan.study, plan.variants)
    names = _factor_names(plan.baseline.levels, found)
    return NO_LABELS if len(set(names)) < len(names) or alike(found, plan.variants) else found


def file_labels(study: Mapping[str, Any], variants: Sequence[Variant]) -> Labels:
    """Return the labels in a checked study's plain values, and what its variants are called."""
    factors = {path: found for path, factor in study.get("factors", {}).items() if (found := _labels(factor))}
    listed = {name: label for name, variant in study.get("variants", {}).items() if (label := _label(variant))}
    if not factors and not listed:
        return NO_LABELS
    named = Labels(factors=factors, variants=listed)
    called = dict(pair for variant in variants for pair in _called(variant, named))
    return Labels(factors=factors, variants={name: label for name, label in called.items() if name != label})


def alike(labels: Labels, variants: Sequence[Variant]) -> tuple[str, str] | None:
    """Return the first two variants that would have one name, or None."""
    first: dict[str, str] = {}
    for variant in variants:
        twin = first.setdefault(labels.variant(variant.name), variant.name)
        if twin != variant.name:
            return twin, variant.name
    return None


def _labels(factor: Any) -> FactorLabels | None:
    if not isinstance(factor, Mapping) or not (factor.get("label") or factor.get("labels")):
        return None
    return FactorLabels(label=factor.get("label"), levels=dict(factor.get("labels") or {}))


def _label(variant: Any) -> str | None:
    """Return the label of a listed variant's plain values, beside its levels; where there is none, these are levels."""
    is_labelled = isinstance(variant, Mapping) and isinstance(variant.get("levels"), Mapping)
    return label if is_labelled and isinstance(label := variant.get("label"), str) else None


def _factor_names(paths: Iterable[str], labels: Labels) -> list[str]:
    """Return what factors are called: by their labels, else by the last part of their paths where no two share it."""
    short = short_names([*paths])
    return [name if (name := labels.factor(path)) != path else short[path] for path in short]


def _called(variant: Variant, labels: Labels) -> Iterator[tuple[str, str]]:
    """Yield a variant's name, with and without its settings, and what it is called; a listed one has its own name."""
    beside = {path: level for path, level in variant.levels.items() if path in (DATA, SETTINGS)}
    ending = "".join(f",{path}={level}" for path, level in beside.items())
    name = variant.name.removesuffix(ending)
    settings = f",{SETTINGS}={beside[SETTINGS]}" if SETTINGS in beside else ""
    levels = {path: level for path, level in variant.levels.items() if path not in beside}
    short, called = short_names([*levels]), dict(zip(levels, _factor_names(levels, labels), strict=True))
    there = varied(levels)
    texts = {path: level_text(level) for path, level in there.items()}
    inside = [path for path, text in texts.items() if f",{short[path]}={text}," in f",{name},"]
    own = _names([(short[path], text) for path, text in texts.items()], ",", "only-")
    labelled = {path: (called[path], level_text(labels.level(path, level))) for path, level in there.items()}
    named = dict(zip(own, _names([*labelled.values()], ", ", "only "), strict=True))
    if name == ",".join(f"{short[path]}={texts[path]}" for path in inside):
        named[name] = ", ".join("=".join(labelled[path]) for path in inside)
    if (label := labels.variants.get(name) or named.get(name)) is not None:
        yield name, label
        yield variant.name, f"{label}{ending}"
        yield f"{name}{settings}", f"{label}{settings}"


def _names(pairs: Sequence[tuple[str, str]], comma: str, only: str) -> list[str]:
    """Return the names that designs give a variant of these factors and levels: by all, by one, by the part left."""
    each = [f"{factor}={level}" for factor, level in pairs]
    left = (factor if level == "present" else f"{factor}={level}" for factor, level in pairs)
    return [comma.join(each), *each, *(f"{only}{name}" for name in left)]

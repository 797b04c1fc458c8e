"""Checks the labels of a study file: of levels that are there, and no two of one name."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ablation.lookup import did_you_mean
from ablation.records import Variant
from ablation.study.factors import labelled_level, written_levels
from ablation.study.file import MAX_SHOWN, Location, shown
from ablation.study.labels import alike, file_labels
from ablation.study.level_names import level_text, short_names
from ablation.study.spec import StudySpec

Found = tuple[Location, str]


def label_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Refuse labels of no level, a second one of a level, and one name for two factors or levels."""
    factors = values.get("factors")
    known = {str(path): factor for path, factor in factors.items()} if isinstance(factors, Mapping) else {}
    called: dict[str, str] = {}
    short = short_names(list(known))
    for path, factor in known.items():
        label = factor.get("label") if isinstance(factor, Mapping) else None
        twin = called.setdefault(label if isinstance(label, str) else short[path], path)
        if twin != path:
            here: Location = ("factors", path, *(("label",) if label is not None else ()))
            yield here, f"factors {twin} and {path} would both be called {shown(label or short[path])}; change a label"
        if isinstance(factor, Mapping) and isinstance(factor.get("labels"), Mapping):
            yield from _level_problems(("factors", path, "labels"), factor["labels"], written_levels(factor))


def _level_problems(here: Location, labels: Mapping[str, Any], levels: Sequence[Any]) -> Iterator[Found]:
    names = [level_text(level) for level in levels]
    found: dict[str, str] = {}
    for key, label in labels.items():
        level = labelled_level(key, levels)
        if level is None:
            near = did_you_mean(key, names) or f"; they are {', '.join(map(shown, levels))}"
            yield (*here, key), f"{shown(key)} is none of the factor's levels{near}"
        elif level in found:
            yield (*here, key), f"level {level} has a label already, {shown(found[level])}"
        elif isinstance(label, str):
            found[level] = label
    called: dict[str, str] = {}
    for name in names:
        label = found.get(name, name)
        twin = called.setdefault(label, name)
        if twin != name:
            yield (
                (*here, *((name,) if name in labels else ())),
                (f"levels {twin} and {name} would both be called {shown(label)}; change a label"),
            )


def same_names(spec: StudySpec, variants: Sequence[Variant]) -> Iterator[Found]:
    """Refuse labels by which two variants would have one name, as those with commas may."""
    labels = file_labels(spec.document(), variants)
    if (twins := alike(labels, variants)) is not None:
        both = f"variants {twins[0][:MAX_SHOWN]} and {twins[1][:MAX_SHOWN]}"
        yield ("factors",), f"{both} would both be called {shown(labels.variant(twins[0]))}; change a label"

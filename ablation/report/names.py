"""Names what is compared as a reader would: changes, the levels at which alone they are asked, the baseline."""

from collections.abc import Mapping, Sequence
from typing import Any

from ablation.analysis.analysis_record import Analysis
from ablation.analysis.answer_records import Answer, LevelChange
from ablation.records import DATA
from ablation.study.comparisons import LISTED
from ablation.study.design import BASELINE, FULL
from ablation.study.level_names import level_text, short_name
from ablation.study.search_spaces import FROM_FILE, SETTINGS, TUNED
from ablation.study.spec import OTHERS

_REMOVED, _REPLACED = ("present", "absent"), ("original", "replaced")
_SETTINGS = {TUNED: "with tuned settings", FROM_FILE: "with the file's settings"}


def change_text(change: LevelChange) -> str:
    """Return `depth 3 → 4`, `removing second`, `variant deep compared with the baseline`."""
    if change.factor == LISTED:
        return f"variant {_without_settings(change.after)} compared with the baseline"
    if (change.before, change.after) == _REMOVED:
        return f"removing {_part(change)}"
    if (change.before, change.after) == _REPLACED:
        return f"replacing {_part(change)}"
    return f"{change.label} {level_text(change.before)} → {level_text(change.after)}"


def subjects(answer: Answer) -> list[str]:
    """Return what an answer is about: its one change, or the two of an interaction.

    Two parts are named by themselves: whether they are seen as added or as removed, they do equally much together.
    """
    changes = sorted(answer.changes, key=lambda change: change.factor == OTHERS)
    return list(map(_part if are_parts(answer) else change_text, changes))


def are_parts(answer: Answer) -> bool:
    """Say whether an answer is about two parts of the model, there or not."""
    return len(answer.changes) == 2 and all((change.before, change.after) == _REMOVED for change in answer.changes)


def comparison_text(answer: Answer, *, joined: str = " × ") -> str:
    """Return an answer's comparison, with the levels at which alone it was asked."""
    return " ".join(filter(None, (joined.join(subjects(answer)), place_text(answer.at))))


def changes_text(answer: Answer) -> str:
    """Return an answer's changes as what is done, so that what is said of them has a direction."""
    changes = sorted(answer.changes, key=lambda change: change.factor == OTHERS)
    return " ".join(filter(None, (" and ".join(map(change_text, changes)), place_text(answer.at))))


def comparison_lines(answer: Answer) -> list[str]:
    """Return an answer's comparison on lines for a narrow place; of a listed variant, the baseline goes unsaid."""
    listed = [f"variant {_without_settings(change.after)}" for change in answer.changes if change.factor == LISTED]
    lines = listed or [f"× {subject}" if number else subject for number, subject in enumerate(subjects(answer))]
    return [*lines, *filter(None, [place_text(answer.at)])]


def place_text(levels: Mapping[str, Any]) -> str:
    """Return where a change is seen: `at depth=4`, `without norm`, `with tuned settings`, `beside the others`."""
    if not levels:
        return ""
    words = [_place(factor, level) for factor, level in levels.items()]
    plain = levels_text(
        {factor: level for (factor, level), word in zip(levels.items(), words, strict=True) if not word}
    )
    return ", ".join(filter(None, [f"at {plain}" if plain else "", *words]))


def with_text(levels: Mapping[str, Any]) -> str:
    """Return which runs have these levels: `with depth=4`, `without norm`, `with norm alone`."""
    if OTHERS in levels:
        return _with_parts(levels)
    placed = place_text(levels)
    return f"with {placed.removeprefix('at ')}" if placed.startswith("at ") else placed


def setting_text(levels: Mapping[str, Any], factors: Sequence[str]) -> str:
    """Return a place by its levels of these factors: of one factor, which was named, `at 4` is enough."""
    shown = {factor: levels[factor] for factor in factors}
    if len(shown) == 1 and not any(_place(factor, level) for factor, level in shown.items()):
        return f"at {level_text(next(iter(shown.values())))}"
    return place_text(shown)


def factors_text(factors: Sequence[str]) -> str:
    """Return `depth`, `depth and norm`, `the other parts`."""
    names = [_SETTING_NAMES.get(factor, short_name(factor)) for factor in factors]
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def levels_text(levels: Mapping[str, Any]) -> str:
    return ", ".join(f"{short_name(factor)}={level_text(level)}" for factor, level in levels.items())


def baseline_text(analysis: Analysis) -> str:
    """Return the baseline with its name, where that says more than that it is the baseline."""
    kind, _, beside = analysis.baseline.partition(",")
    if kind not in (BASELINE, FULL):
        return f"the baseline {analysis.baseline}"
    named = "the baseline" if kind == BASELINE else f"the baseline ({FULL})"
    data, _, settings = beside.rpartition(f"{SETTINGS}=")
    data = beside if f"{SETTINGS}=" not in beside else data.removesuffix(",")
    on = f"on {data.removeprefix(f'{DATA}=')}" if data else ""
    return " ".join(filter(None, (named, on, _SETTINGS.get(settings))))


def baseline_levels_text(analysis: Analysis) -> str:
    """Return the baseline's name, and its levels where the name does not have them."""
    levels = next(row.levels for row in analysis.variants if row.is_baseline)
    kind = analysis.baseline.partition(",")[0]
    if kind == BASELINE:
        return levels_text(levels)
    return f"{FULL}: {levels_text(levels)}" if kind == FULL else analysis.baseline


def training_function(analysis: Analysis) -> str:
    """Return the name of the user's own function that trained, or nothing where the built-in loop did."""
    return str((analysis.study.get("training") or {}).get("name", ""))


def baseline_mark(name: str) -> str:
    """Return what marks the baseline beside its name."""
    if name == BASELINE:
        return ""
    return " (reference)" if name.startswith(f"{BASELINE},") else " (baseline)"


def is_absent(level: Any) -> bool:
    """Whether a level says that something is not there."""
    return level in ("absent", "none") or level is False


def settings_text(settings: str) -> str:
    """Return what tells tuned variants from those with the file's settings."""
    return _SETTINGS.get(settings, settings)


_OTHERS = "the others"
_SETTING_NAMES = {OTHERS: "the other parts", SETTINGS: "the settings", DATA: "the data set"}


def _part(change: LevelChange) -> str:
    return _OTHERS if change.factor == OTHERS else change.label


def _with_parts(levels: Mapping[str, Any]) -> str:
    """Return which of a part and all others runs have: `without norm`, `with norm alone`, all of them or none."""
    ((part, own),) = ((short_name(factor), level) for factor, level in levels.items() if factor != OTHERS)
    if levels[OTHERS] == _REMOVED[0]:
        return "with all parts" if own == _REMOVED[0] else f"without {part}"
    return f"with {part} alone" if own == _REMOVED[0] else "with none of the parts"


def _place(factor: str, level: Any) -> str:
    """Return the words for a level of a part or of the settings, nothing for other factors."""
    name = short_name(factor)
    if factor == SETTINGS:
        return _SETTINGS.get(level, "")
    if factor == DATA:
        return f"on {level_text(level)}"
    if factor == OTHERS:
        return "beside the others" if level == _REMOVED[0] else "when alone"
    known = {
        _REMOVED[0]: f"with {name}",
        _REMOVED[1]: f"without {name}",
        _REPLACED[0]: f"with the original {name}",
        _REPLACED[1]: f"with {name} replaced",
    }
    return known.get(level, "") if isinstance(level, str) else ""


def _without_settings(variant: str) -> str:
    return variant.removesuffix(f",{SETTINGS}={TUNED}").removesuffix(f",{SETTINGS}={FROM_FILE}")

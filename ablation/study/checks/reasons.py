"""Says why a key or name of a study file is refused where a near name would mislead."""

import re
from collections.abc import Iterable

from ablation.lookup import did_you_mean
from ablation.records import TASKS

_SEEDS = "`seeds` is the number of runs per variant"
_FOLDS = "folds stand in `replicates`: `replicates: {folds: 5, repeats: 2}`, for data without a test split"
_KEYS = {
    "seed": f"the number that all random streams come from is `study_seed`; {_SEEDS}",
    "random_seed": f"the number that all random streams come from is `study_seed`; {_SEEDS}",
    "folds": _FOLDS,
    "n_folds": _FOLDS,
    "looks": "planned looks stand in `seeds`: `seeds: {looks: [5, 8, 12, 20]}`",
    "repeats": _SEEDS,
    "runs": _SEEDS,
}
"""What people look for at the top of a study file, or in `seeds`, under another name."""
_OF_VALIDATION = re.compile(r"(val|valid|validation|dev)([_.-].*|$)", re.IGNORECASE)


def reason_for_key(key: str) -> str:
    """Return what a key at the top of a study file is called here, or nothing where it is not known."""
    reason = _KEYS.get(key)
    return f"; {reason}" if reason else ""


def reason_for_metric(name: str, known: Iterable[str], *, is_own: bool) -> str:
    """Return why a metric is unknown: measured on validation, of another task, misspelt, or not declared."""
    if is_own:
        hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
        return f"{hint}; declare it: `metrics: {{NAME: maximize}}`"
    if _OF_VALIDATION.match(name):
        return "; runs are compared on test: validation is for tuning and for training.epoch_choice"
    tasks = [task for task, row in TASKS.items() if name in row.metrics]
    if tasks:
        return f"; it is measured where `data.task` is {' or '.join(tasks)}"
    form = f"`metrics: {{{name}: {{function: 'm.py:NAME', direction: maximize}}}}`"
    also = f"declare a metric of your own: {form}, or by the name of torchmetrics' (`torchmetrics:MulticlassF1Score`)"
    return did_you_mean(name, known) or f"; known: {', '.join(known)}; {also}"


_ANOTHER_DATA_SET = (
    "it makes another data set: name several as a list, `data: [{...}, {...}]`, and every variant is trained on each"
)
_OF_DATA = {
    "name": _ANOTHER_DATA_SET,
    "root": _ANOTHER_DATA_SET,
    "size": _ANOTHER_DATA_SET,
    "validation": "all variants have the same validation split",
    "task": "all variants have the same kind of target",
    "ignore_index": "all variants are measured on the same targets",
    "target_scaling": "all variants are measured on the same targets",
}
"""Why a key of `data` cannot be a factor."""


def reason_for_data_factor(path: str, known: Iterable[str], *, is_own: bool) -> str:
    """Return why a path below `data` cannot be a factor; nothing where it is another path or a misspelt factor."""
    section, _, key = path.partition(".")
    keys = [name.removeprefix("data.") for name in known if name.startswith("data.")]
    if section != "data":
        return ""
    if key in _OF_DATA:
        return _OF_DATA[key]
    if did_you_mean(key, keys):
        return ""
    only = " and ".join(f"data.{name}" for name in keys)
    more = "" if is_own else '; arguments of a data function of your own can be, too: `data: {name: "data.py:load"}`'
    return f"of this data only {only} can be factors{more}"

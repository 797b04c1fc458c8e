"""Says why a key or name of a study file is refused where a near name would mislead."""

import re
from collections.abc import Iterable

from ablation.lookup import did_you_mean, nearest_names
from ablation.records import TASKS
from ablation.study.factors import RECIPE_EXAMPLE
from ablation.study.sections import MAX_KEY, SECTIONS

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
    "baseline": "the sections data, model and training are the baseline",
    "parameters": "what is varied stands in `factors`",
    "search_space": "what is varied stands in `factors`, what is tuned in `tune`",
    "grid": "what is varied stands in `factors`, and `design: factorial` takes every combination",
    "device": "a study is the same on any device; give it to the command: `--device`",
    "workers": "a study is the same with any number of workers; give it to the command: `--workers`",
}
"""What people look for at the top of a study file, or in `seeds`, under another name."""
_OTHER_WORDS = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "bs": "batch_size",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "scheduler": "schedule",
    "lr_scheduler": "schedule",
    "criterion": "loss",
    "val_split": "validation",
    "validation_split": "validation",
    "norm": "normalization",
    "layers": "depth",
    "num_layers": "depth",
    "early_stopping": "patience",
}
"""Keys of sections by other words for them."""
_OF_VALIDATION = re.compile(r"(val|valid|validation|dev)([_.-].*|$)", re.IGNORECASE)


def reason_for_key(key: str, section: str | None = None) -> str:
    """Return what a key that is unknown at the top of a study file, or in a section, is called or where it stands.

    Nothing where that is not known.
    """
    if section is None and key in _KEYS:
        return f"; {_KEYS[key]}"
    name = _OTHER_WORDS.get(key, key)
    if section is not None and name != key and name in _keys_of(section):
        return f"; it is called `{name}` here"
    others = [other for other in SECTIONS if other != section and name in _keys_of(other) and name != "name"]
    return f"; it is a key of {others[0]}: `{others[0]}: {{{name}: …}}`" if others else ""


def reason_for_factor(path: str, known: Iterable[str]) -> str:
    """Return which factor was meant, by a name that is near within its section, or which there are."""
    section, _, key = path.rpartition(".")
    paths = {each: each.rpartition(".") for each in known}
    within = [each for each, (of, _, _) in paths.items() if of == section] if section in SECTIONS else list(paths)
    last = {paths[each][2]: each for each in within}
    word = _OTHER_WORDS.get(key, key)
    near = [word] if word in last else nearest_names(key, last, limit=1)
    if near:
        return f"did you mean {last[near[0]]!r}?"
    if not section:
        return f"a factor that is no path sets several settings: {RECIPE_EXAMPLE}; paths are: {', '.join(paths)}"
    return f"factors {f'of {section} ' if section in SECTIONS and within else ''}are: {', '.join(within or paths)}"


def reason_for_metric_text(name: str, known: Iterable[str], *, is_own: bool) -> str:
    """Return how the metric that stands as a mere name is written, and why it is unknown, where it is."""
    known, is_plain = list(known), name.isidentifier() and name.isascii() and len(name) <= MAX_KEY
    if is_own and is_plain:
        return f"; write `metric: {{name: {name}, direction: minimize}}`, or maximize"
    meant = name if name in known else next(iter(nearest_names(name, known, limit=1)), None)
    if meant is not None and not _OF_VALIDATION.match(name):
        return f"; for example `metric: {{name: {meant}}}`"
    reason = reason_for_metric(name, known, is_own=False) if is_plain and not is_own else ""
    return f"; for example `metric: {{name: test_accuracy}}`{reason}"


def _keys_of(section: str) -> set[str]:
    """Return the keys that a section of the built-in data, models or training may have."""
    return {key for kind in SECTIONS[section] for key in kind.model_fields}


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

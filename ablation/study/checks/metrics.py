"""Refuses metrics of the user's own that the engine or a training function does not take, and names that are taken."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from ablation.records import SIGNS, TASKS, Given
from ablation.study.file import Location, shown, value_text
from ablation.study.spec import declared_directions, is_own_training, task_of

Found = tuple[Location, str]

SPLITS = ("train", "train_sample", "validation", "test")
MEASURED_ANYWAY = (
    *("measured_epoch", "peak_memory_mib", "total_seconds", "learning_rate", "epoch_seconds", "images_per_second"),
    *("epoch", "pruned"),
)


def own_metric_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Yield what is wrong with `metrics`, beside types and ranges, and with `metric` beside it."""
    declared = values.get("metrics")
    if not isinstance(declared, Mapping):
        return
    if is_own_training(values):
        for name, own in declared.items():
            if isinstance(own, Mapping):
                way = own.get("direction") if own.get("direction") in SIGNS else "maximize"
                yield ("metrics", name), f"a training function of your own returns its metrics; write `{name}: {way}`"
        return
    for name, own in declared.items():
        if isinstance(own, str) and own in SIGNS:
            form = f"`{name}: {{function: 'm.py:{_identifier(name)}', direction: {own}}}`"
            yield ("metrics", name), f"the engine measures by a function: {form}; a direction alone is for what {_OWN}"
        elif isinstance(own, Mapping):
            yield from _problems_of_one(name, own, values)
    yield from _problems_of_choice(declared, values)


_OWN = "a training function of your own returns"


def _identifier(name: Any) -> str:
    return name if isinstance(name, str) and name.isidentifier() else "function"


def _problems_of_one(name: Any, own: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Found]:
    task = TASKS[task_of(values)]
    scores = ("loss", *task.scores)
    taken = {*task.metrics, *MEASURED_ANYWAY, *scores, *(f"{split}_{score}" for split in SPLITS for score in scores)}
    others = values["metrics"].keys() - {name}
    if name in taken:
        message = f"{shown(name)} is measured anyway; give the metric another name, such as {shown(f'own_{name}')}"
        yield ("metrics", name), message
    elif any(name == f"{split}_{other}" for split in SPLITS for other in others):
        yield ("metrics", name), f"{shown(name)} is what another metric is called on a split; give it another name"
    if own.get("given") == "probabilities" and not task.has_classes:
        rest = " or ".join(given for given in get_args(Given) if given != "probabilities")
        yield ("metrics", name, "given"), f"a {task_of(values)} has no probabilities; it has {rest}"


def _problems_of_choice(declared: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[Found]:
    """Yield where `metric` contradicts `metrics`, or is tuned by and not measured on validation."""
    metric = values.get("metric")
    name = metric.get("name") if isinstance(metric, Mapping) else None
    own = declared.get(name) if isinstance(name, str) else None
    if not isinstance(metric, Mapping) or not isinstance(own, Mapping):
        return
    way, given = declared_directions(values).get(str(name)), metric.get("direction")
    if way is not None and given in SIGNS and given != way:
        yield ("metric", "direction"), f"must be {way!r}, as metrics.{name} has it, not {value_text(given)}"
    if values.get("tune") is not None and own.get("epochs", "last") == "last":
        yield (
            ("tune",),
            f"tuning looks at {name} on validation after every epoch; give metrics.{name} `epochs: every`",
        )

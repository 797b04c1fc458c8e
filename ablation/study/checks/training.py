"""Checks the optimizers and schedules that a study names, as its baseline, levels or choices, and their arguments."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from ablation.code import is_code
from ablation.lookup import did_you_mean, is_same, replaced
from ablation.records import TASKS, LossSetting
from ablation.study.factors import recipe_settings, varied_settings
from ablation.study.file import Location, shown
from ablation.study.sections import Training
from ablation.study.spec import is_own_training, task_of
from ablation.study.torch_names import (
    MOMENTUM,
    OPTIMIZERS,
    OTHER_OPTIMIZERS,
    OTHER_SCHEDULES,
    OWN_SCHEDULES,
    SCHEDULES,
    SET_BY_KEYS,
    SET_BY_TRAINING,
    WEIGHT_DECAY,
    Choice,
    unknown_choice,
)

Found = tuple[Location, str]
_IDLE_MOMENTUM = ("adam", "adamw")
"""Optimizers without momentum beside which the key was always accepted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """A key of `training` that names a class of PyTorch's: the names there are, the others, and what sets arguments."""

    key: str
    known: Mapping[str, Choice]
    others: Mapping[str, str]

    @property
    def arguments(self) -> str:
        return f"{self.key}_arguments"

    def set_elsewhere(self, name: str) -> Mapping[str, str]:
        """Return the arguments that something else than the file's mapping sets, and what."""
        return SET_BY_KEYS if self.key == "optimizer" else {**SET_BY_TRAINING[""], **SET_BY_TRAINING.get(name, {})}


_OPTIMIZER = _Named(key="optimizer", known=OPTIMIZERS, others=OTHER_OPTIMIZERS)
_SCHEDULE = _Named(key="schedule", known=SCHEDULES, others=OTHER_SCHEDULES)


def training_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Yield what is wrong with the optimizers and schedules of an unchecked study that the engine trains.

    What must fit together is looked at in the baseline, and with what each level of a recipe sets in it.
    """
    if is_own_training(values) or not isinstance(values.get("training", {}), Mapping):
        return
    unknown = {named.key: list(_unknown(values, named)) for named in (_OPTIMIZER, _SCHEDULE)}
    every = {
        named.key: [] if unknown[named.key] else _names(values, named, with_recipes=True)
        for named in (_OPTIMIZER, _SCHEDULE)
    }
    found = [problem for problems in unknown.values() for problem in problems]
    found += _problems(values, every)
    yield from found
    for here, settings in recipe_settings(values.get("factors")):
        with_it = values
        for path, value in settings.items():
            with_it = replaced(with_it, str(path), value)
        for location, message in _problems(with_it, every):
            path = ".".join(map(str, location[:2]))
            if (location, message) not in found:
                yield (*here, path) if path in settings else here, message


def _problems(values: Mapping[str, Any], every: Mapping[str, Sequence[str]]) -> Iterator[Found]:
    """Yield what does not fit together; `every` has the optimizers and schedules of all variants, none if unknown."""
    for named in (_OPTIMIZER, _SCHEDULE):
        yield from _argument_problems(values, named, every[named.key]) if every[named.key] else ()
    yield from _key_problems(values, every["optimizer"])
    yield from _unit_problems(values, every["schedule"])
    yield from _warmup_problems(values)
    yield from _loss_problems(values)


def _settings(values: Mapping[str, Any], key: str, *, with_recipes: bool = False) -> Iterator[tuple[Location, Any]]:
    """Yield what a key of `training` is in the baseline, in a factor's other levels, and among what tuning tries."""
    baseline = values.get("training", {}).get(key, Training.model_fields[key].default)
    path, factors, tune = f"training.{key}", values.get("factors"), values.get("tune")
    yield ("training", key), baseline
    for here, varied, level in varied_settings(factors):
        if varied == path and level != baseline and (with_recipes or here[1] == path):
            yield here, level
    space = tune.get(path) if isinstance(tune, Mapping) else None
    choices = space.get("choices") if isinstance(space, Mapping) else None
    for index, choice in enumerate(choices if isinstance(choices, tuple) else ()):
        yield ("tune", path, "choices", index), choice


def _unknown(values: Mapping[str, Any], named: _Named) -> Iterator[Found]:
    for here, name in _settings(values, named.key, with_recipes=True):
        if isinstance(name, str) and name not in named.known:
            yield here, unknown_choice(named.key, name, named.known, named.others, shown(name))


def _names(values: Mapping[str, Any], named: _Named, *, with_recipes: bool = False) -> list[str]:
    """Return the names of known optimizers or schedules, each once."""
    settings = _settings(values, named.key, with_recipes=with_recipes)
    found = [name for _, name in settings if isinstance(name, str) and name in named.known]
    return list(dict.fromkeys(found))


def _argument_problems(values: Mapping[str, Any], named: _Named, names: Sequence[str]) -> Iterator[Found]:
    """Refuse arguments that something else sets or that none of the names takes, and ask for those that one needs."""
    given = values.get("training", {}).get(named.arguments, {})
    if not isinstance(given, Mapping):
        return
    taken = {name: named.known[name].all_arguments for name in names}
    takes = _takes(taken)
    here: Location = ("training", named.arguments)
    for argument in given:
        reasons = [reason for name in names if (reason := named.set_elsewhere(name).get(argument)) is not None]
        if reasons:
            yield (*here, argument), f"{shown(argument)} cannot be given here: {reasons[0]}; {takes}"
        elif not any(argument in arguments for arguments in taken.values()):
            near = did_you_mean(str(argument), [each for arguments in taken.values() for each in arguments])
            yield (*here, argument), f"no argument {shown(argument)}{near}; {takes}"
    for name in _names(values, named):
        lacking = [argument for argument in named.known[name].needed if argument not in given]
        if lacking:
            example = f"`{named.arguments}: {{{', '.join(f'{each}: …' for each in lacking)}}}`"
            yield here, f"{name} needs {' and '.join(lacking)}; add {example} to training"


def _takes(taken: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name} takes {', '.join(arguments) or 'none'}" for name, arguments in taken.items())


def _key_problems(values: Mapping[str, Any], names: Sequence[str]) -> Iterator[Found]:
    """Refuse a weight decay that one of the optimizers lacks, and a momentum that none has."""
    training = values.get("training", {})
    without = [name for name in _names(values, _OPTIMIZER) if WEIGHT_DECAY not in OPTIMIZERS[name].keys]
    if without and training.get(WEIGHT_DECAY, 0) != 0:
        yield ("training", WEIGHT_DECAY), f"{without[0]} takes no weight decay; leave it out"
    default = Training.model_fields[MOMENTUM].default
    is_idle = names and all(MOMENTUM not in OPTIMIZERS[name].keys for name in names)
    if is_idle and not set(names) & set(_IDLE_MOMENTUM) and training.get(MOMENTUM, default) != default:
        yield ("training", MOMENTUM), f"{' and '.join(names)} take{'s' * (len(names) == 1)} no momentum; leave it out"


def _unit_problems(values: Mapping[str, Any], names: Sequence[str]) -> Iterator[Found]:
    if values.get("training", {}).get("schedule_unit") == "step" and names and set(names) <= set(OWN_SCHEDULES):
        message = (
            f"{' and '.join(names)} changes in every step; schedule_unit is for classes of torch.optim.lr_scheduler"
        )
        yield ("training", "schedule_unit"), message


def _warmup_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Refuse a warm-up that is longer than the training, as one that is counted in steps."""
    epochs = [value for _, value in _settings(values, "epochs") if _is_number(value)]
    for here, warmup in _settings(values, "warmup"):
        if _is_number(warmup) and epochs and warmup > min(epochs):
            yield (
                here,
                f"a warm-up of {shown(warmup)} epochs is longer than a training of {min(epochs)}; it is in epochs",
            )


def _loss_problems(values: Mapping[str, Any]) -> Iterator[Found]:
    """Refuse what a loss of the user's own, or that of the task, does not take."""
    task, tune = task_of(values), values.get("tune")
    own = next((loss for _, loss in _settings(values, "loss") if is_code(loss)), None)
    for key in get_args(LossSetting):
        default, path = Training.model_fields[key].default, f"training.{key}"
        used = [here for here, value in _settings(values, key) if not is_same(value, default)]
        used += [("tune", path)] if isinstance(tune, Mapping) and path in tune else []
        takers = ", ".join(name for name, each in TASKS.items() if key in each.loss_settings)
        if used and key not in TASKS[task].loss_settings:
            yield used[0], f"{key} is a setting of the losses of {takers}; this study's task is {task}"
        elif used and own is not None:
            yield used[0], f"{key} is of the built-in loss, and training.loss is {shown(own)}; do it in that"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

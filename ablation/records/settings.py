"""What a variant is trained with: the sections data, model and training of its study file, and the study's seed.

Plans and configuration.json keep them as plain values, which `plain` gives and `from_plain` reads; a training function
gets the same. What the code that a section names takes beside our own settings stays a mapping, its `arguments`.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from ablation.records.locked import Replicates
from ablation.records.tasks import IGNORED, TaskName

R = TypeVar("R", bound="DataSettings | ModelSettings | EngineTraining | FunctionTraining")

Augmentation = Literal["none", "flip", "crop", "crop-flip"]
ScheduleUnit = Literal["epoch", "step"]
ClassWeights = Literal["none", "balanced"] | tuple[float, ...]
EpochChoice = Literal["last", "best-validation"]
Precision = Literal["fp32", "tf32", "bf16"]
TargetScaling = Literal["standardize", "none"]
ARGUMENTS = "arguments"
NO_WEIGHTS = "none"
_KINDS: Mapping[Any, Any] = {Literal: str, float: int | float}
"""What plain values of a type are instances of. A choice may be one of a later version: its runs are summarized too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """A `data` section. `size` is the pixels of a square's side, or (height, width); None where images keep theirs.

    `validation` is the share of the training images that the seed holds out, `limit` how many are drawn from at all.
    `test` is the share that is drawn once as the test split of data that has none.
    `ignore_index` is a setting of targets that have positions, `target_scaling` of a regression's.
    """

    name: str
    limit: int | None = None
    validation: float | Literal["none"] = "none"
    augmentation: Augmentation = "none"
    root: str | None = None
    size: int | tuple[int, int] | None = None
    task: TaskName = "classification"
    ignore_index: int = IGNORED
    target_scaling: TargetScaling = "standardize"
    test: float | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, values: Any, *, path: str = "data") -> Self:
        """Read a `data` section; `size` is a setting of images alone, elsewhere it is an argument as any other.

        So is a `test` that is no share: earlier versions gave it to functions that asked for it.
        """
        given: Mapping[str, Any] = values if isinstance(values, Mapping) else {}
        arguments = [
            *(["size"] if given.get("name") != "images" else []),
            *(["test"] if not _is_of(given.get("test"), float | None) else []),
        ]
        return _record(cls, values, path, arguments=tuple(arguments))

    def plain(self) -> dict[str, Any]:
        size = list(self.size) if isinstance(self.size, tuple) else self.size
        return {
            "limit": self.limit,
            "validation": self.validation,
            "augmentation": self.augmentation,
            **({"test": self.test} if self.test is not None else {}),
            "name": self.name,
            **({"root": self.root} if self.name != "digits" else {}),  # which are embedded
            **({"size": size} if self.name == "images" else {}),
            **{name: value for name in _OF_TASKS if (value := getattr(self, name)) != _DEFAULTS[name]},
            **self.arguments,
        }

    @property
    def source(self) -> str:
        """What is read, as a text: sections that differ in nothing else share one data set, drawn from as each says."""
        drawn = ("limit", "validation", "augmentation", "target_scaling")
        return json.dumps({name: value for name, value in self.plain().items() if name not in drawn}, sort_keys=True)


_OF_TASKS = ("task", "ignore_index", "target_scaling")
_DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(DataSettings)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """A `model` section: `arguments` build it, then modules are removed, replaced and frozen by name or pattern.

    `weights` is the file of the state that it starts from, NO_WEIGHTS where it is initialized.
    """

    name: str
    remove: tuple[str, ...] = ()
    replace: Mapping[str, str] = field(default_factory=dict)
    weights: str = NO_WEIGHTS
    frozen: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, values: Any, *, path: str = "model") -> Self:
        # A function's own argument of such a name, in a plan of a version before these keys, may be of any kind.
        forms: Mapping[str, Any] = {"weights": str, "frozen": tuple[str, ...]}
        given = values if isinstance(values, Mapping) else {}
        odd = tuple(name for name, form in forms.items() if name in given and not _is_of(given[name], form))
        return _record(cls, values, path, arguments=odd)

    def plain(self) -> dict[str, Any]:
        edits: dict[str, Any] = {"remove": list(self.remove), "replace": dict(self.replace)}
        edits |= {"weights": self.weights} if self.weights != NO_WEIGHTS else {}
        edits |= {"frozen": list(self.frozen)} if self.frozen else {}
        return {**edits, "name": self.name, **self.arguments}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTraining:
    """A `training` section that the engine trains by; those with a default here came after the first version."""

    epochs: int
    batch_size: int
    optimizer: str
    optimizer_arguments: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float
    schedule: str
    schedule_arguments: Mapping[str, Any] = field(default_factory=dict)
    schedule_unit: ScheduleUnit = "epoch"
    warmup: float = 0.0
    momentum: float
    weight_decay: float
    gradient_clipping: float | Literal["none"] = "none"
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    class_weights: ClassWeights = "none"
    epoch_choice: EpochChoice = "last"
    patience: int | Literal["none"] = "none"
    ema: float | Literal["none"] = "none"
    precision: Precision = "fp32"
    threads: int = 1

    @classmethod
    def from_plain(cls, values: Any, *, path: str = "training") -> Self:
        return _record(cls, values, path)

    def plain(self) -> dict[str, Any]:
        """Return them without those that came last and have their defaults, as earlier versions wrote them."""
        values = {name: value for name, value in asdict(self).items() if _UNSET.get(name, _NONE) != value}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


_NONE = object()
_UNSET: Mapping[str, Any] = {
    "optimizer_arguments": {},
    "schedule_arguments": {},
    "schedule_unit": "epoch",
    "warmup": 0.0,
    "gradient_clipping": "none",
    "label_smoothing": 0.0,
    "class_weights": "none",
    "patience": "none",
    "ema": "none",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionTraining:
    """A `training` section that names a training function, with the arguments that it finds there."""

    name: str
    threads: int = 1
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_plain(cls, values: Any, *, path: str = "training") -> Self:
        return _record(cls, values, path)

    def plain(self) -> dict[str, Any]:
        return {"name": self.name, "threads": self.threads, **self.arguments}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that a variant is trained with, but for the seed index; data and model may lack where a function trains.

    `replicates` are the folds that the seed index is one of; None where it is a seed.
    """

    data: DataSettings | None
    model: ModelSettings | None
    training: EngineTraining | FunctionTraining
    study_seed: int
    replicates: Replicates | None = None

    @property
    def is_own_training(self) -> bool:
        """Whether a user's training function trains, which measures what it likes."""
        return isinstance(self.training, FunctionTraining)

    @property
    def engine(self) -> EngineTraining:
        """The settings of the engine, where it trains."""
        assert isinstance(self.training, EngineTraining)
        return self.training

    @property
    def function(self) -> FunctionTraining:
        """The training function, where one trains."""
        assert isinstance(self.training, FunctionTraining)
        return self.training

    def sections(self) -> tuple[DataSettings, ModelSettings]:
        """Return data and model where the engine trains, which needs both."""
        assert self.data is not None
        assert self.model is not None
        return self.data, self.model

    @classmethod
    def from_plain(cls, values: Any, *, path: str = "settings") -> Self:
        """Read what `plain` gave, of earlier versions too.

        Raises:
            ValueError: it is something else; the message ends with the path of what is wrong.
        """
        given = {"data": None, "model": None, "training": None, "study_seed": 0, **_mapping(values, path)}
        data, model, training, seed = (given[name] for name in ("data", "model", "training", "study_seed"))
        kind = FunctionTraining if "name" in _mapping(training, f"{path}.training") else EngineTraining
        if not _is_of(seed, int):
            raise ValueError(f"cannot be {_shown(seed)} @ {path}.study_seed")
        return cls(
            data=None if data is None else DataSettings.from_plain(data, path=f"{path}.data"),
            model=None if model is None else ModelSettings.from_plain(model, path=f"{path}.model"),
            training=kind.from_plain(training, path=f"{path}.training"),
            study_seed=seed,
            replicates=_replicates(given.get("replicates"), f"{path}.replicates"),
        )

    def plain(self) -> dict[str, Any]:
        return {
            "data": self.data.plain() if self.data is not None else None,
            "model": self.model.plain() if self.model is not None else None,
            "training": self.training.plain(),
            "study_seed": self.study_seed,
            **({"replicates": self.replicates.plain()} if self.replicates is not None else {}),
        }


def _replicates(values: Any, path: str) -> Replicates | None:
    if values is None:
        return None
    given = _mapping(values, path)
    if set(given) != {"folds", "repeats"} or not all(_is_of(number, int) and number > 0 for number in given.values()):
        raise ValueError(f"cannot be {_shown(values)} @ {path}")
    return Replicates(**given)


def _record(kind: type[R], values: Any, path: str, *, arguments: tuple[str, ...] = ()) -> R:
    """Return a section's record; what is no field of it is an argument, where it has any, as are those named so."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name not in (ARGUMENTS, *arguments)}
    given = {name: value for name, value in _mapping(values, path).items() if name in hints}
    wrong = next((name for name, value in given.items() if not _is_of(value, hints[name])), None)
    if wrong is not None:
        raise ValueError(f"cannot be {_shown(given[wrong])} @ {path}.{wrong}")
    made: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if ARGUMENTS in get_type_hints(kind):
        made[ARGUMENTS] = {name: value for name, value in values.items() if name not in hints}
    lacking = [each.name for each in fields(kind) if _is_required(each) and each.name not in made]
    if lacking:
        raise ValueError(f"needs {', '.join(lacking)} @ {path}")
    return kind(**made)


def _is_required(each: Field[Any]) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a plain value has a type; no setting is a truth value."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_is_of(value, each) for each in inner)
    if kind is tuple:
        return isinstance(value, list | tuple) and all(_is_of(each, inner[0]) for each in value)
    return not isinstance(value, bool) and isinstance(value, _KINDS.get(kind, kind))


def _mapping(values: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise ValueError(f"must be a mapping, not {_shown(values)} @ {path}")  # noqa: TRY004 - as all of `from_plain`
    return values


def _shown(value: Any) -> str:
    return f"{str(value)[:80]!a}"

"""The checked form of a study file: every key it may have, with type, range and default.

Sections are frozen pydantic models. A section's `configuration` is the part of it that can alter a result: settings
that have no effect beside the others (a placement where nothing is normalized) are left out, so two variants that
would train the same thing are seen to be the same.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from ablation.lookup import did_you_mean
from ablation.results import METRICS, Direction
from ablation.study.file import value_text

MAX_NAME = 200
MAX_LEVELS = 100
MAX_VARIANTS = 1000


def _known_metric(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}{did_you_mean(name, METRICS) or '; known: ' + ', '.join(METRICS)}")
    return name


def _two_factors(factors: tuple[str, str]) -> tuple[str, str]:
    if factors[0] == factors[1]:
        raise ValueError("an interaction is of two different factors")
    return factors


# Text in an `Annotated` says in words what is allowed, where the type alone says it badly.
Name = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+=,@\[\]-]*$", max_length=MAX_NAME),
    f"text of at most {MAX_NAME} letters, digits and ._+=,@[]-, a letter or digit first",
]
Root = Annotated[str, Field(pattern=r"^\P{Cc}+$", max_length=4096), "a path"]
MetricName = Annotated[str, AfterValidator(_known_metric), "the name of a metric"]
FactorPath = Annotated[str, "the path of a factor, such as model.depth"]
FactorPair = Annotated[
    tuple[FactorPath, FactorPath],
    AfterValidator(_two_factors),
    "a list of two factors, such as [model.depth, model.normalization]",
]
Level = Annotated[
    bool | int | float | str | tuple[int, ...], "a number, a word, true, false or a list of whole numbers"
]
Levels = Annotated[tuple[Level, ...], Field(min_length=2, max_length=MAX_LEVELS), f"a list of 2 to {MAX_LEVELS} levels"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ImageData(Section):
    """Settings that every data set of images has."""

    limit: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        default=None, description="train on a seeded, stratified subset of so many training images"
    )
    validation: Literal["none"] | Annotated[float, Field(gt=0.0, le=0.5)] = Field(
        default=0.1, description="share of the training images held out by the seed, or none"
    )
    augmentation: Literal["none", "flip", "crop", "crop-flip"] = Field(
        default="none", description="none, flip, crop (reflected by 4 pixels at the border) or crop-flip"
    )

    def configuration(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"root"})


class Digits(ImageData):
    name: Literal["digits"]


class Cifar10(ImageData):
    name: Literal["cifar10"]
    root: Root | None = Field(default=None, description="folder that holds, or shall hold, the CIFAR-10 download")


class Images(ImageData):
    name: Literal["images"]
    root: Root = Field(
        description="folder or .tar.gz archive of train/<class>/* and test/<class>/*", examples=["root: photos.tar.gz"]
    )


class Cnn(Section):
    """The built-in model: blocks of convolution, normalization, activation and 2×2 max pooling; dense layers."""

    name: Literal["cnn"] = Field(examples=["name: cnn"])
    depth: int = Field(default=3, ge=1, le=5, description="convolution blocks; block i has width × 2^i channels")
    width: int = Field(default=32, ge=1, le=1024, description="channels of the first block")
    kernel: Literal[1, 3, 5, 7] = Field(default=3, description="side of the convolution kernel")
    dense: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(
        default=(128, 64), max_length=8, description="sizes of the hidden dense layers"
    )
    normalization: Literal["none", "batch", "layer", "group", "instance"] = Field(
        default="none", description="none, batch, layer, group or instance (instance: convolutions only)"
    )
    normalization_placement: Literal["before", "after"] = Field(
        default="before", description="before or after the activation"
    )
    groups: int = Field(default=8, ge=1, le=1024, description="groups of group normalization")
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0, description="dropout before each dense layer")
    activation: Literal["relu", "leaky_relu", "gelu", "silu", "tanh", "elu"] = Field(
        default="relu", description="relu, leaky_relu, gelu, silu, tanh or elu"
    )

    def configuration(self) -> dict[str, Any]:
        without_effect = set()
        if self.normalization == "none":
            without_effect.add("normalization_placement")
        if self.normalization != "group":
            without_effect.add("groups")
        return self.model_dump(mode="json", exclude=without_effect)


class Training(Section):
    epochs: int = Field(default=20, ge=1, le=100_000)
    batch_size: int = Field(
        default=64, ge=2, le=1_000_000, description="a last batch of one image joins the batch before"
    )
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0.0, le=1000.0, description="its peak, where a schedule changes it")
    schedule: Literal["constant", "cosine", "one-cycle"] = Field(
        default="constant", description="constant, cosine (to 0) or one-cycle"
    )
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0, description="sgd only")
    weight_decay: float = Field(default=0.0, ge=0.0, le=10.0, description="L2 for adam and sgd, decoupled for adamw")
    epoch_choice: Literal["last", "best-validation"] = Field(
        default="last", description="the epoch whose weights are measured on test: last or best-validation (accuracy)"
    )
    threads: int = Field(
        default=1, ge=1, le=1024, description="CPU threads of a run; part of what it can be repeated by"
    )

    def configuration(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude=set() if self.optimizer == "sgd" else {"momentum"})


class MetricChoice(Section):
    """The primary metric; `meaningful` is the half-width of its region of practical equivalence (ROPE)."""

    name: MetricName = "test_accuracy"
    direction: Direction | None = None
    meaningful: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_from_the_metric(cls, values: Any) -> Any:
        name = values.get("name", "test_accuracy") if isinstance(values, dict) else None
        if not isinstance(name, str) or name not in METRICS:
            return values
        metric = METRICS[name]
        return {"direction": metric.direction, "meaningful": metric.meaningful, **values}

    @field_validator("direction")
    @classmethod
    def _is_the_metrics_own(cls, direction: Direction | None, info: ValidationInfo) -> Direction | None:
        name = info.data.get("name")
        if name is not None and direction != METRICS[name].direction:
            raise ValueError(f"must be {METRICS[name].direction!r} for {name}, not {value_text(direction)}")
        return direction


class Question(Section):
    """What the study asks: the average effect of a factor, or the interaction of two, on a metric."""

    effect: FactorPath | None = None
    interaction: FactorPair | None = None
    on: MetricName | None = Field(default=None, description="metric; the study's own where not given")
    meaningful: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="after")
    def _asks_one_thing(self) -> "Question":
        if (self.effect is None) == (self.interaction is None):
            raise ValueError("a question has either `effect: FACTOR` or `interaction: [FACTOR, FACTOR]`")
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        return (self.effect,) if self.effect is not None else self.interaction or ()


Questions = Annotated[
    tuple[Question, ...], Field(max_length=100), "a list of at most 100 questions, such as [{effect: model.depth}]"
]


class StudySpec(Section):
    """A study file, checked."""

    name: Name = Field(examples=["name: my-study"])
    description: str = Field(default="", max_length=5000)
    data: Digits | Cifar10 | Images = Field(discriminator="name", examples=["data: {name: digits}"])
    model: Cnn = Field(examples=["model: {name: cnn, depth: 3}"])
    training: Training = Training()
    factors: Annotated[
        dict[str, Levels],
        Field(min_length=1),
        "a mapping of at least one factor to its levels, such as {model.depth: [3, 4]}",
    ] = Field(examples=["factors: {model.depth: [3, 4]}"])
    design: Literal["factorial"] = "factorial"
    seeds: int = Field(default=5, ge=1, le=10_000, description="runs per variant")
    study_seed: int = Field(default=0, ge=0, lt=2**31, description="what every random stream is derived from")
    metric: MetricChoice = Field(default_factory=lambda: MetricChoice.model_validate({}))
    questions: Questions = ()
    alpha: float = Field(default=0.05, gt=0.0, le=0.5, description="family-wise error rate")
    collapse_margin: float = Field(
        default=0.02,
        ge=0.0,
        le=1.0,
        description="a run whose test accuracy is within this of the largest class's share has collapsed",
    )

    def settings(self) -> dict[str, Any]:
        """Return the sections data, model and training whole, as plain values, and the study's seed."""
        return self.model_dump(mode="json", include={*SECTIONS, "study_seed"})

    def setting(self, path: str) -> Any:
        """Return the baseline's value of a factor's path."""
        section, _, key = path.partition(".")
        return getattr(getattr(self, section), key)

    def with_levels(self, levels: Mapping[str, Any]) -> "StudySpec":
        """Return the study with these levels in its baseline, each of them checked before."""
        sections = {name: dict(getattr(self, name)) for name in SECTIONS}
        for path, level in levels.items():
            section, _, key = path.partition(".")
            sections[section][key] = level
        return self.model_copy(
            update={name: type(getattr(self, name)).model_validate(values) for name, values in sections.items()}
        )

    def configuration(self) -> dict[str, Any]:
        """Return what can alter a run's result, but for the seed: data, model, training, the study's seed."""
        return {
            "data": self.data.configuration(),
            "model": self.model.configuration(),
            "training": self.training.configuration(),
            "study_seed": self.study_seed,
        }

    def fixed(self) -> dict[str, Any]:
        """Return what no later execution of the study may change: baseline, data, training and metric."""
        return {**self.configuration(), "metric": self.metric.model_dump(mode="json")}

    def locked(self) -> dict[str, Any]:
        """Return what the answers depend on and is decided before the first run; a later change is a deviation."""
        return self.model_dump(mode="json", include={"metric", "questions", "alpha", "seeds", "collapse_margin"})


SECTIONS: dict[str, tuple[type[Section], ...]] = {
    "data": (Digits, Cifar10, Images),
    "model": (Cnn,),
    "training": (Training,),
}


FIXED = (*SECTIONS, "study_seed", "metric")
NOT_FACTORS = ("data.name", "data.root", "data.validation", "model.name", "training.threads")
"""Paths that may not vary: what is compared has one data set, split and thread count in common."""


def names_of(section: type[Section]) -> tuple[str, ...]:
    """Return the values of `name` that choose a section's model."""
    field = section.model_fields.get("name")
    return get_args(field.annotation) if field is not None else ()


def factor_fields(values: Mapping[str, Any]) -> dict[str, FieldInfo]:
    """Return {path: field} of all that can be a factor of a study with these sections."""
    return {
        path: field
        for section in SECTIONS
        for key, field in _model_of(section, values).model_fields.items()
        if (path := f"{section}.{key}") not in NOT_FACTORS
    }


def _model_of(section: str, values: Mapping[str, Any]) -> type[Section]:
    """Return the model that a section's `name` chooses, or the first."""
    inner = values.get(section)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return next((model for model in SECTIONS[section] if name in names_of(model)), SECTIONS[section][0])


NOT_BUILT_YET = {
    "tune": "tuning each variant",
    "remove": "removing components by name",
    "replace": "replacing components by name",
    "forbid": "forbidding combinations of levels",
    "loss": "a loss of your own",
    "precision": "precision as a setting",
    "looks": "adding seeds at planned looks",
}
LATER_DESIGNS = ("one-at-a-time", "leave-one-out", "add-one", "listed")

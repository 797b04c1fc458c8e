"""The sections of a study file that say what is trained: data, model, training; each with type, range and default.

They are frozen pydantic models. A section's `configuration` is the part of it that can alter a result: settings that
have no effect beside the others (a placement where nothing is normalized) are left out, so two variants that would
train the same thing are seen to be the same. Sections that name a user's own code take any other key as an argument.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.fields import FieldInfo

from ablation.code import code_problem, is_code
from ablation.lookup import did_you_mean
from ablation.records import (
    IGNORED,
    NO_WEIGHTS,
    TASKS,
    TORCHMETRICS,
    Direction,
    Given,
    MetricEpochs,
    TaskName,
    is_recordable_name,
    recordable_text,
)
from ablation.study.torch_names import MOMENTUM, OPTIMIZERS, OWN_SCHEDULES, SCHEDULES, WEIGHT_DECAY

MAX_PATTERNS = 1000
MAX_KEY = 200
"""Characters of the name of an argument or of a part: trackers keep parameters under names of at most 250."""
OWN = "your own code"
TORCHVISION = "torchvision"
UNIT_FORM = "a short text, such as fraction or mm"
SIZE_FORM = "a whole number of pixels from 1 to 4096, or two of them as [height, width]"
_OF_TORCHVISION = re.compile(
    r"(alexnet|convnext|densenet|efficientnet|googlenet|inception|maxvit|mnasnet|mobilenet|regnet|resnet|resnext|"
    r"shufflenet|squeezenet|swin|vgg|vit|wide_resnet)[a-z0-9_]*$"
)
"""Names of families of torchvision's classifiers; torchvision itself is not asked, as it imports torch."""
CODE_FORM = "'package.module:attribute' or 'path/to/file.py:attribute'"


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _is_recordable(value: Any) -> bool:
    """Whether all texts of a plain value can be kept in a database."""
    if isinstance(value, Mapping):
        return all(_is_recordable(part) for item in value.items() for part in item)
    if isinstance(value, list | tuple):
        return all(map(_is_recordable, value))
    return not isinstance(value, str) or recordable_text(value) == value


LossName = Literal["cross_entropy", "mse", "huber", "mae", "binary_cross_entropy"]
USUAL_LOSSES = tuple(dict.fromkeys(task.losses[0] for task in TASKS.values()))
"""What a task is trained on where nothing else is named: it follows from the data."""


class OpenSection(Section):
    """A section whose other keys are arguments of the code that it names."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="after")
    def _has_argument_names(self) -> "OpenSection":
        extra = self.model_extra or {}
        wrong = [key for key in extra if not (key.isidentifier() and is_recordable_name(key))]
        if wrong:
            raise ValueError(f"{wrong[0]!a} cannot be the name of an argument: letters, digits and _ only")
        long = next((key for key in extra if len(key) > MAX_KEY), None)
        if long is not None:
            message = f"{long[:40]!a}… has {len(long)} characters; the name of an argument has at most {MAX_KEY}"
            raise ValueError(message)
        odd = next((key for key, value in extra.items() if not _is_recordable(value)), None)
        if odd is not None:
            raise ValueError(f"{odd} has a text with NUL or half of a surrogate pair, which no database takes")
        return self


def _names_code(name: str) -> str:
    problem = code_problem(name)
    if problem is not None:
        raise ValueError(problem)
    return name


# Text in an `Annotated` says in words what is allowed, where the type alone says it badly.
CodeName = Annotated[str, Field(max_length=4096), AfterValidator(_names_code), CODE_FORM]
Root = Annotated[str, Field(pattern=r"^\P{Cc}+$", max_length=4096), "a path"]
Side = Annotated[int, Field(ge=1, le=4096)]
Pattern = Annotated[str, Field(min_length=1, max_length=1000), "the name of a module, or a pattern such as '*.bn2'"]
Patterns = Annotated[
    tuple[Pattern, ...], Field(max_length=MAX_PATTERNS), "a list of names of modules, such as [layer3.1, '*.bn2']"
]
Replacements = Annotated[
    dict[Pattern, Annotated[str, Field(min_length=1, max_length=4096)]],
    Field(max_length=MAX_PATTERNS),
    f"a mapping of names of modules to a class of torch.nn or {CODE_FORM}, such as {{'*.relu': GELU}}",
]
Plain = bool | int | float | str | None
Arguments = Annotated[
    dict[str, Annotated[Plain | tuple[Plain, ...], "a number, text, true, false, null or a list of these"]],
    "a mapping of arguments to their values, such as {eps: 1e-6}",
]


def _names_metric(name: str) -> str:
    if not name.startswith(TORCHMETRICS):
        return _names_code(name)
    if not _OF_TORCHMETRICS.match(name):
        raise ValueError(f"{name!r} names no class; write 'torchmetrics:MulticlassF1Score'")
    return name


_OF_TORCHMETRICS = re.compile(rf"{TORCHMETRICS}([A-Za-z_]\w*\.)*[A-Za-z_]\w*$", re.ASCII)
MetricFunction = Annotated[
    str, Field(max_length=4096), AfterValidator(_names_metric), f"{CODE_FORM}, or 'torchmetrics:CLASS'"
]


def _square(size: int | tuple[int, int]) -> int | tuple[int, int]:
    """Return a height and width that are equal as the one number that means the same."""
    return size[0] if isinstance(size, tuple) and size[0] == size[1] else size


class DataSection(Section):
    """Settings that every data set has."""

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


class DividedData(DataSection):
    """Data whose source may have no test split."""

    test: Annotated[float, Field(gt=0.0, le=0.5)] | None = Field(
        default=None, description="share that is drawn once, by the study's seed, as test split of data that has none"
    )

    def configuration(self) -> dict[str, Any]:
        values = super().configuration()
        return {key: value for key, value in values.items() if key != "test" or value is not None}


class Digits(DataSection):
    name: Literal["digits"]


class Cifar10(DataSection):
    name: Literal["cifar10"]
    root: Root | None = Field(
        default=None, description="folder that holds, or shall hold, the CIFAR-10 download; relative to this file"
    )


class Images(DividedData):
    name: Literal["images"]
    root: Root = Field(
        description="folder or .tar.gz archive of train/<class>/* and test/<class>/*; relative to this file",
        examples=["root: photos.tar.gz"],
    )
    size: Annotated[Side | tuple[Side, Side], AfterValidator(_square), SIZE_FORM] | None = Field(
        default=None, description="pixels of the shorter side, scaled, the center cut out; or [height, width]"
    )

    def configuration(self) -> dict[str, Any]:
        values = super().configuration()
        return {key: value for key, value in values.items() if key != "size" or value is not None}


class OwnData(DividedData, OpenSection):
    """A user's function, `load(root)`, that returns the splits."""

    name: CodeName
    root: Root | None = None
    task: TaskName = Field(default="classification", description="what the targets are: " + ", ".join(TASKS))
    ignore_index: int = Field(
        default=IGNORED,
        ge=-(2**31),
        lt=2**31,
        description="tokens and segmentation: the target that counts for nothing",
    )
    target_scaling: Literal["standardize", "none"] = Field(
        default="standardize", description="regression: whether targets are standardized by the training split"
    )

    def configuration(self) -> dict[str, Any]:
        values = super().configuration()
        return {key: value for key, value in values.items() if key not in self._without_effect()}

    def _without_effect(self) -> set[str]:
        """Return the keys of tasks that have their default, or have no effect in this one."""
        idle = {key for key in OF_TASKS if getattr(self, key) == type(self).model_fields[key].default}
        return idle | {key for key, tasks in TASKS_OF.items() if self.task not in tasks}


TASKS_OF: Mapping[str, tuple[TaskName, ...]] = {
    "ignore_index": ("tokens", "segmentation"),
    "target_scaling": ("regression",),
}
"""The tasks that a key of `data` is a setting of."""
OF_TASKS = ("task", *TASKS_OF)


OF_MODELS = ("remove", "replace", "weights", "frozen")
"""What may be said of any model, and is left out where it is not."""


class ModelSection(Section):
    """What every model can be changed by: modules removed, replaced or frozen by name, weights to start from."""

    remove: Patterns = Field(default=(), description="modules left out, by name or pattern")
    replace: Replacements = Field(default={}, description="modules replaced, by name or pattern")
    weights: Root = Field(
        default=NO_WEIGHTS, description="file of the state dict that it starts from, relative to this file; or none"
    )
    frozen: Patterns = Field(default=(), description="modules that are not trained, by name or pattern")

    def configuration(self) -> dict[str, Any]:
        values = self.model_dump(mode="json", exclude=self._without_effect())
        patterns = [key for key in ("remove", "frozen") if key in values]
        return {**values, **{key: sorted(set(values[key])) for key in patterns}}

    def _without_effect(self) -> set[str]:
        return self.unset()

    def unset(self) -> set[str]:
        """Return the keys of every model that have their defaults."""
        return {key for key in OF_MODELS if getattr(self, key) == type(self).model_fields[key].default}


class Cnn(ModelSection):
    """The built-in model: blocks of convolution, normalization, activation and 2×2 max pooling; dense layers."""

    name: Literal["cnn"] = Field(examples=["name: cnn"])
    depth: int = Field(default=3, ge=1, le=5, description="convolution blocks; block i has width × 2^i channels")
    width: int = Field(default=32, ge=1, le=1024, description="channels of the first block")
    repeats: int = Field(default=0, ge=0, le=100, description="further blocks of unchanged shape after each block")
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

    def _without_effect(self) -> set[str]:
        idle = super()._without_effect()
        if self.normalization == "none":
            idle.add("normalization_placement")
        if self.normalization != "group":
            idle.add("groups")
        return idle if self.repeats else {*idle, "repeats"}


class Torchvision(ModelSection, OpenSection):
    """A classification model of torchvision without weights; other keys are arguments of its builder."""

    name: Annotated[
        str, Field(pattern=r"^torchvision:[A-Za-z0-9_]+$"), "torchvision:NAME, such as torchvision:resnet18"
    ]
    normalization: Literal["batch", "none", "group", "layer", "instance"] = Field(
        default="batch", description="what stands in the place of batch normalization"
    )
    groups: int = Field(default=8, ge=1, le=1024, description="groups of group normalization")
    stem: Literal["imagenet", "small"] = Field(default="imagenet", description="small: for images of 32 or 64 pixels")
    width: float = Field(default=1.0, gt=0.0, le=16.0, description="factor of all channels")

    def _without_effect(self) -> set[str]:
        return super()._without_effect() | (set() if self.normalization == "group" else {"groups"})


class OwnModel(ModelSection, OpenSection):
    """A user's function that returns an nn.Module; other keys are its arguments."""

    name: CodeName


def _not_all_zero(weights: tuple[float, ...]) -> tuple[float, ...]:
    if not any(weights):
        raise ValueError("weights that are all 0 leave nothing to train on")
    return weights


Weights = Annotated[
    tuple[Annotated[float, Field(ge=0.0)], ...],
    Field(min_length=1, max_length=100_000),
    AfterValidator(_not_all_zero),
    "a list of numbers of at least 0, one per class",
]


class Training(Section):
    epochs: int = Field(default=20, ge=1, le=100_000)
    batch_size: int = Field(
        default=64, ge=2, le=1_000_000, description="a last batch of one image joins the batch before"
    )
    optimizer: Annotated[str, "adam, adamw, sgd or a class of torch.optim, such as RMSprop"] = Field(
        default="adam", description="adam, adamw, sgd or a class of torch.optim, such as RMSprop"
    )
    optimizer_arguments: Arguments = Field(default={}, description="its other arguments, such as {betas: [0.9, 0.95]}")
    learning_rate: float = Field(default=1e-3, gt=0.0, le=1000.0, description="its peak, where a schedule changes it")
    schedule: Annotated[str, "constant, cosine, one-cycle or a class of torch.optim.lr_scheduler, such as StepLR"] = (
        Field(
            default="constant", description="constant, cosine (to 0), one-cycle or a class of torch's, such as StepLR"
        )
    )
    schedule_arguments: Arguments = Field(default={}, description="of a class of torch's, such as {step_size: 10}")
    schedule_unit: Literal["epoch", "step"] = Field(
        default="epoch", description="what a class of torch's counts: epoch or step"
    )
    warmup: float = Field(
        default=0.0, ge=0.0, le=100_000.0, description="first epochs in which the rate rises to the schedule's"
    )
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0, description="of sgd, RMSprop and Muon")
    weight_decay: float = Field(default=0.0, ge=0.0, le=10.0, description="L2 for adam and sgd, decoupled for adamw")
    gradient_clipping: Literal["none"] | Annotated[float, Field(gt=0.0)] = Field(
        default="none", description="largest norm of the whole gradient, or none"
    )
    loss: LossName | CodeName = Field(
        default="cross_entropy",
        description="cross_entropy; of a regression mse, huber or mae; of multilabel binary_cross_entropy; or your "
        "own: 'file.py:loss', called with outputs and targets",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="of the built-in loss: the share of each target that all classes have"
    )
    class_weights: Literal["none", "balanced"] | Weights = Field(
        default="none", description="of the built-in loss: none, balanced over the training images, or one per class"
    )
    epoch_choice: Literal["last", "best-validation"] = Field(
        default="last", description="the epoch whose weights are measured on test: last or best-validation (accuracy)"
    )
    patience: Literal["none"] | Annotated[int, Field(ge=1, le=100_000)] = Field(
        default="none", description="epochs without a better score on validation after which a run ends, or none"
    )
    ema: Literal["none"] | Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default="none", description="decay of a moving average of the weights, which is evaluated and kept, or none"
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        default="fp32", description="of products and convolutions: fp32, tf32 (GPU) or bf16 (by autocast)"
    )
    threads: int = Field(
        default=1,
        ge=1,
        le=1024,
        description="CPU threads per run; part of the run's identity, because results depend on it",
    )

    def configuration(self) -> dict[str, Any]:
        own = self.with_its_arguments()
        idle = own.unset() | {MOMENTUM, WEIGHT_DECAY} - set(OPTIMIZERS[self.optimizer].keys)
        idle |= {"loss"} if self.loss in USUAL_LOSSES else set()
        idle |= {"schedule_unit"} if self.schedule in OWN_SCHEDULES else set()
        return own.model_dump(mode="json", exclude=idle)

    def unset(self) -> set[str]:
        """Return the keys that came after the first version, and have their defaults."""
        return {key for key in _LATER if getattr(self, key) == type(self).model_fields[key].default}

    def with_its_arguments(self) -> "Training":
        """Return it with the arguments that its optimizer and schedule take: others may be those of other levels."""
        taken = {
            "optimizer_arguments": OPTIMIZERS[self.optimizer].all_arguments,
            "schedule_arguments": SCHEDULES[self.schedule].all_arguments,
        }
        return self.model_copy(
            update={
                key: {name: value for name, value in getattr(self, key).items() if name in names}
                for key, names in taken.items()
            }
        )


_LATER = (
    *("precision", "optimizer_arguments", "schedule_arguments", "schedule_unit", "warmup", "gradient_clipping"),
    *("label_smoothing", "class_weights", "patience", "ema"),
)


class OwnTraining(OpenSection):
    """A user's function that returns metrics; other keys are its settings, given by the names of its parameters."""

    name: CodeName
    threads: int = Field(default=1, ge=1, le=1024)

    def configuration(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class OwnMetric(OpenSection):
    """A metric of your own that the engine measures; other keys are arguments of its function."""

    function: MetricFunction = Field(
        description="a function of outputs and targets that returns a number, or a class of torchmetrics"
    )
    direction: Direction = Field(description="whether more or less is better")
    unit: Annotated[str, Field(max_length=20, pattern=r"^\P{Cc}*$"), UNIT_FORM] = Field(
        default="", description="fraction (shown in percent), nats, bits, target, or what stands behind its values"
    )
    given: Given = Field(
        default="outputs",
        description="outputs: logits, or predictions in the targets' unit; probabilities; answers: classes, labels",
    )
    epochs: MetricEpochs = Field(
        default="last", description="last: on test, at the end; every: on the held-out split after each epoch, too"
    )


SECTIONS: dict[str, tuple[type[Section], ...]] = {
    "data": (Digits, Cifar10, Images, OwnData),
    "model": (Cnn, Torchvision, OwnModel),
    "training": (Training, OwnTraining),
}


def names_of(section: type[Section]) -> tuple[str, ...]:
    """Return the values of `name` that choose a built-in section."""
    field = section.model_fields.get("name")
    return get_args(field.annotation) if field is not None else ()


def built_in_names(section: str) -> list[str]:
    """Return the built-in values of a section's `name`, in words where there are many."""
    names = [name for kind in SECTIONS[section] for name in names_of(kind)]
    return [*names, "torchvision:NAME"] if section == "model" else names


def unknown_name(section: str, name: Any, shown: str) -> str:
    """Say that there is no built-in data set or model of that name, and what there is."""
    names = built_in_names(section)
    is_torchvisions = section == "model" and isinstance(name, str) and _OF_TORCHVISION.match(name)
    near = f"; a model of torchvision is written 'torchvision:{name}'" if is_torchvisions else ""
    hint = near or (did_you_mean(name, names) if isinstance(name, str) else "")
    return f"unknown {section} {shown}{hint}; built in: {', '.join(names)}; or your own: {CODE_FORM}"


def _tag_of_data(values: Any) -> str | None:
    name = _name(values)
    return OWN if isinstance(name, str) and ":" in name else _text(name)


def _tag_of_model(values: Any) -> str | None:
    name = _name(values)
    if isinstance(name, str) and name.startswith("torchvision:"):
        return TORCHVISION
    return OWN if isinstance(name, str) and ":" in name else _text(name)


def _tag_of_training(values: Any) -> str:
    return OWN if _name(values) is not None else "built in"


def _name(values: Any) -> Any:
    return values.get("name") if isinstance(values, Mapping) else getattr(values, "name", None)


def _text(name: Any) -> str | None:
    return None if name is None else str(name)


Data = Annotated[
    Annotated[Digits, Tag("digits")]
    | Annotated[Cifar10, Tag("cifar10")]
    | Annotated[Images, Tag("images")]
    | Annotated[OwnData, Tag(OWN)],
    Discriminator(_tag_of_data),
]
Model = Annotated[
    Annotated[Cnn, Tag("cnn")] | Annotated[Torchvision, Tag(TORCHVISION)] | Annotated[OwnModel, Tag(OWN)],
    Discriminator(_tag_of_model),
]
TrainingChoice = Annotated[
    Annotated[Training, Tag("built in")] | Annotated[OwnTraining, Tag(OWN)], Discriminator(_tag_of_training)
]


def section_of(section: str, values: Mapping[str, Any]) -> type[Section]:
    """Return the class that an unchecked section is checked by, the first where none fits."""
    inner = values.get(section)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    *built_in, own = SECTIONS[section]
    if section == "training":
        return own if name is not None else built_in[0]
    if isinstance(name, str) and name.startswith("torchvision:") and section == "model":
        return Torchvision
    if is_code(name):
        return own
    return next((kind for kind in built_in if name in names_of(kind)), built_in[0])


def own_keys(section: str, values: Mapping[str, Any]) -> dict[str, FieldInfo]:
    """Return the keys of an unchecked section that are arguments of the code it names."""
    kind, inner = section_of(section, values), values.get(section)
    if not issubclass(kind, OpenSection) or not isinstance(inner, Mapping):
        return {}
    return {key: FieldInfo(annotation=Any) for key in inner if key not in kind.model_fields}

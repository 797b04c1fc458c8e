"""The checked form of a study file: every key beside its sections, with type, range and default."""

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from ablation.lookup import is_same, replaced, value_at
from ablation.records import (
    DATA,
    TASKS,
    DeclaredMetric,
    Direction,
    LockedMetric,
    LockedQuestion,
    Settings,
    TaskName,
    declared_metrics,
    directions_of,
    is_recordable_name,
)
from ablation.study.budget import Budget
from ablation.study.conditions import Conditions, conditions_of, holds, in_order
from ablation.study.factors import (
    AnyLevel,
    Assignment,
    ComponentFactor,
    Factor,
    FactorPath,
    LabelledVariant,
    Level,
    Listed,
    level_names,
    levels_with_settings,
    with_labels_by_level,
)
from ablation.study.level_names import NOT_VARIED
from ablation.study.looks import PlannedLooks, ReplicatesChoice, Seeds
from ablation.study.search_spaces import Tuning
from ablation.study.sections import (
    MAX_KEY,
    OF_TASKS,
    SECTIONS,
    Cnn,
    Data,
    Images,
    Model,
    OwnData,
    OwnMetric,
    OwnTraining,
    Section,
    Training,
    TrainingChoice,
    names_of,
    own_keys,
    section_of,
)

MAX_NAME = 200
NAME_CHARACTERS = r"A-Za-z0-9._+=,@\[\]-"
MAX_VARIANTS = 1000
OTHERS = "others"
"""Stands for all other parts together, in the interaction of a part with them."""


def _two_factors(factors: tuple[str, str]) -> tuple[str, str]:
    if factors[0] == factors[1]:
        raise ValueError("an interaction is of two different factors")
    return factors


def _without_control_characters(text: str) -> str:
    found = next((char for char in text if unicodedata.category(char) == "Cc" and char not in "\n\t"), None)
    if found is not None:
        raise ValueError(f"has the control character U+{ord(found):04X}, which no database takes")
    return text


Name = Annotated[
    str,
    Field(pattern=f"^[A-Za-z0-9][{NAME_CHARACTERS}]*$", max_length=MAX_NAME),
    f"text of at most {MAX_NAME} letters, digits and ._+=,@[]-, a letter or digit first",
]
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=MAX_NAME), "the name of a metric"]
FactorPair = Annotated[
    tuple[FactorPath, FactorPath],
    AfterValidator(_two_factors),
    "a list of two factors, such as [model.depth, model.normalization]",
]


class MetricChoice(Section):
    """The primary metric; `meaningful` is the half-width of its region of practical equivalence (ROPE).

    `validation` is the metric that tuning judges a user's training function by.
    """

    name: MetricName = "test_accuracy"
    direction: Direction | None = None
    meaningful: Annotated[float, Field(gt=0.0)] | None = None
    validation: MetricName | None = Field(
        default=None,
        description="what a training function of your own reports or returns on validation, which `tune` judges it by",
    )

    @model_serializer(mode="wrap")
    def _without_idle(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write it as earlier versions did, where nothing is tuned by it."""
        return {key: value for key, value in handler(self).items() if key != "validation" or value is not None}

    def locked(self) -> LockedMetric:
        assert self.direction is not None  # a checked study has one
        return LockedMetric(name=self.name, direction=self.direction, meaningful=self.meaningful)


def _metric_form(values: Any) -> str:
    return "function" if isinstance(values, Mapping | OwnMetric) else "direction"


DeclaredMetrics = Annotated[
    Annotated[Direction, Tag("direction")] | Annotated[OwnMetric, Tag("function")],
    Discriminator(_metric_form),
    "maximize or minimize, of what a training function of your own returns, or a function of your own as "
    "`{function: FILE.py:NAME, direction: maximize}`",
]


class Question(Section):
    """What the study asks: the average effect of a factor, the interaction of two, or a listed variant's difference.

    `at` asks it where other factors have these levels only. `levels` asks it between two levels, the second minus the
    first, instead of between the baseline's and each other; of an interaction, for some of its factors.
    """

    effect: FactorPath | None = None
    interaction: FactorPair | None = None
    variant: Annotated[str, "the name of a listed variant"] | None = None
    levels: (
        Annotated[
            tuple[Level, Level] | dict[FactorPath, tuple[Level, Level]],
            "a list of two levels, such as [2, 3]; of an interaction, a mapping of a factor to such a list",
        ]
        | None
    ) = None
    at: Assignment = Field(default={})
    on: MetricName | None = Field(default=None, description="metric; the study's own where not given")
    meaningful: Annotated[float, Field(gt=0.0)] | None = None

    @model_validator(mode="after")
    def _asks_one_thing(self) -> "Question":
        if sum(asked is not None for asked in (self.effect, self.interaction, self.variant)) != 1:
            raise ValueError(
                "a question has one of `effect: FACTOR`, `interaction: [FACTOR, FACTOR]` and `variant: NAME`"
            )
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        return (self.effect,) if self.effect is not None else self.interaction or ()

    def compared_levels(self) -> dict[str, tuple[Any, Any]]:
        """Return the two levels that are compared, of each factor where they are given."""
        given = self.model_dump(mode="json", include={"levels"})["levels"] or {}
        pairs = given if isinstance(given, dict) else {str(self.effect): given}
        return {factor: (first, second) for factor, (first, second) in pairs.items()}

    def locked(self) -> LockedQuestion:
        return LockedQuestion(
            effect=self.effect,
            interaction=self.interaction,
            variant=self.variant,
            levels=self.compared_levels(),
            at=self.model_dump(mode="json", include={"at"})["at"],
            on=self.on,
            meaningful=self.meaningful,
        )


Questions = Annotated[
    tuple[Question, ...], Field(max_length=100), "a list of at most 100 questions, such as [{effect: model.depth}]"
]
Design = Literal["factorial", "one-at-a-time", "leave-one-out", "add-one", "leave-one-out+add-one", "listed"]
PART_DESIGNS: tuple[Design, ...] = ("leave-one-out", "add-one", "leave-one-out+add-one")
"""Designs whose factors are parts: the baseline has them all, each is there or not."""


class StudySpec(Section):
    """A study file, checked."""

    name: Name = Field(examples=["name: my-study"])
    description: Annotated[str, Field(max_length=5000), AfterValidator(_without_control_characters)] = ""
    data: Data | None = Field(default=None, examples=["data: {name: digits}"])
    model: Model | None = Field(default=None, examples=["model: {name: cnn, depth: 3}"])
    training: TrainingChoice = Training()
    factors: Annotated[
        dict[str, Factor],
        Field(min_length=1),
        "a mapping of at least one factor to its levels, such as {model.depth: [3, 4]}",
    ] = Field(examples=["factors: {model.depth: [3, 4]}"])
    design: Design = "factorial"
    variants: Annotated[
        dict[Name, Listed],
        Field(max_length=MAX_VARIANTS),
        "a mapping of names to what differs from the baseline, such as {small: {model.depth: 2}}",
    ] = Field(default={}, description="the variants beside the baseline, where the design is listed")
    forbid: Annotated[
        tuple[Assignment, ...], Field(max_length=MAX_VARIANTS), "a list of combinations, such as [{model.depth: 4}]"
    ] = Field(default=(), description="combinations of levels that make no sense")
    tune: Tuning | None = Field(default=None, description="settings that each variant is tuned over, on validation")
    seeds: Seeds = Field(
        default=5, description="runs per variant, those at each planned look, or seed indices such as [0, 1, 42]"
    )
    replicates: Annotated[ReplicatesChoice, "a mapping such as {folds: 5, repeats: 2}"] | None = Field(
        default=None,
        description="folds in the place of seeds, for data without a test split",
        examples=["replicates: {folds: 5, repeats: 2}"],
    )
    study_seed: int = Field(default=0, ge=0, lt=2**31, description="what every random stream is derived from")
    metric: MetricChoice = Field(default=MetricChoice(), examples=["metric: {name: test_accuracy}"])
    metrics: Annotated[
        dict[MetricName, DeclaredMetrics],
        Field(max_length=100),
        "a mapping of metrics to functions, such as {f1: {function: 'm.py:f1', direction: maximize}}, or to maximize "
        "or minimize where a training function of your own returns them",
    ] = Field(default={}, description="metrics of your own: what the engine calls, or your training function returns")
    questions: Questions = ()
    alpha: float = Field(default=0.05, gt=0.0, le=0.5, description="family-wise error rate")
    collapse_margin: float = Field(
        default=0.02,
        ge=0.0,
        le=1.0,
        description="a run has collapsed that is within this of a constant answer (of a classification: its test "
        "accuracy of the largest class's share), and of whose answers 95 % are the same",
    )

    budget: Annotated[Budget, "a mapping such as {hours: 2} or {minutes: 90}"] | None = Field(
        default=None,
        description="wall-clock time of the study's executions in all; it may change at any time, as no result depends "
        "on it",
    )

    _data_sets: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def data_sets(self) -> Mapping[str, Any]:
        """The data sets that every variant is trained on, by what they are called; none where there is but one."""
        return self._data_sets

    def of_data_sets(self, data: Mapping[str, Any]) -> "StudySpec":
        """Return the study with these data sets, checked sections by what they are called, `data` the first of them."""
        spec = self.model_copy()
        spec._data_sets = dict(data)
        return spec

    @model_validator(mode="before")
    @classmethod
    def _fill_from_the_task(cls, values: Any) -> Any:
        return filled(values) if isinstance(values, Mapping) else values

    @property
    def task(self) -> TaskName:
        """The kind of target that its data has."""
        return self.data.task if isinstance(self.data, OwnData) else "classification"

    @property
    def own_metrics(self) -> tuple[DeclaredMetric, ...]:
        """The metrics of the user's own that the engine measures."""
        return declared_metrics(self.model_dump(mode="json", include={"metrics"}))

    @property
    def validation_metric(self) -> tuple[str, Direction] | None:
        """What a user's training function is tuned by, and which way is better; None where it says nothing.

        That is the direction which `metrics` has for it, else the compared metric's.
        """
        if (name := self.metric.validation) is None:
            return None
        declared = directions_of(self.model_dump(mode="json", include={"metrics"}))
        return name, declared.get(name, self.metric.locked().direction)

    @property
    def looks(self) -> tuple[int, ...]:
        """The runs per variant at each look; a number of seeds is one look."""
        if isinstance(self.seeds, PlannedLooks) and self.replicates is None:
            return self.seeds.numbers
        return (len(self.seed_indices),)

    @property
    def seed_indices(self) -> tuple[int, ...]:
        """The seeds of the runs of a variant, in their order; of folds, their numbers."""
        if self.replicates is not None:
            return tuple(range(self.replicates.record.count))
        match self.seeds:
            case tuple():
                return self.seeds
            case int():
                return tuple(range(self.seeds))
            case looks:
                return tuple(range(looks.numbers[-1]))

    @property
    def most_seeds(self) -> int:
        """The runs per variant at the last look."""
        return self.looks[-1]

    @property
    def levels(self) -> dict[str, tuple[Any, ...]]:
        """Every factor's levels, as variants know them; of a component, the baseline's first."""
        return {name: level_names(factor) for name, factor in self.factors.items()}

    @property
    def listed(self) -> dict[str, dict[str, Any]]:
        """What each listed variant has otherwise than the baseline."""
        return {
            name: variant.levels if isinstance(variant, LabelledVariant) else variant
            for name, variant in self.variants.items()
        }

    @property
    def conditions(self) -> Conditions:
        """Beside which levels of others each factor varies that does not everywhere."""
        return conditions_of(self.model_dump(mode="json", include={"factors"})["factors"])

    def baseline_levels(self) -> dict[str, Any]:
        """Return each factor's level in the baseline: the one that sets what the file has, where it varies there."""
        conditions = self.conditions
        found: dict[str, Any] = {}
        for name in in_order(list(self.factors), conditions):
            varies = holds(conditions.get(name, {}), found)
            found[name] = self._baseline_level(name, self.factors[name]) if varies else NOT_VARIED
        return {name: found[name] for name in self.factors}

    @property
    def baseline_assignment(self) -> dict[str, Any]:
        """Each factor's level in the baseline, and its data set where there are several."""
        return {**self.baseline_levels(), **({DATA: next(iter(self.data_sets))} if self.data_sets else {})}

    def _baseline_level(self, name: str, factor: Factor) -> Any:
        if isinstance(factor, ComponentFactor):
            return factor.levels[0]
        levels = levels_with_settings(name, factor)
        return next(
            level
            for level, settings in levels
            if all(is_same(value, self.setting(path)) for path, value in settings.items())
        )

    def document(self) -> dict[str, Any]:
        """Return the study as plain values, without its budget, and what is rarely used and not used here."""
        values = self.model_dump(mode="json", exclude={"budget"})
        if self.model is not None:
            idle = self.model.unset()
            idle |= {"repeats"} if isinstance(self.model, Cnn) and not self.model.repeats else set()
            values["model"] = {key: value for key, value in values["model"].items() if key not in idle}
        if isinstance(self.training, Training):
            idle = self.training.unset()
            values["training"] = {key: value for key, value in values["training"].items() if key not in idle}
        if self.data is not None:
            values["data"] = _data_document(self.data)
        if self.data_sets:
            values["data"] = [
                {**_data_document(data), **({"label": name} if name != data.name else {})}
                for name, data in self.data_sets.items()
            ]
        factors = {
            name: {key: value for key, value in factor.items() if value} if isinstance(factor, dict) else factor
            for name, factor in values["factors"].items()
        }
        values |= {"factors": factors, "questions": [question.locked().plain() for question in self.questions]}
        if self.replicates is not None:
            del values["seeds"]
        return {key: value for key, value in values.items() if value or key not in _RARE}

    def settings(self) -> Settings:
        """Return the sections data, model and training whole, and the study's seed."""
        own = self.training.with_its_arguments() if isinstance(self.training, Training) else self.training
        spec = self.model_copy(update={"training": own})
        return Settings.from_plain(spec.model_dump(mode="json", include={*SECTIONS, "study_seed", "replicates"}))

    def setting(self, path: str) -> Any:
        """Return the baseline's value of a setting."""
        section, key, *inside = path.split(".")
        value = getattr(getattr(self, section), key)
        return value_at(value, ".".join(inside)) if inside else value

    def with_levels(self, levels: Mapping[str, Any], *, tuned: Mapping[str, Any] | None = None) -> "StudySpec":
        """Return the study with these levels and tuned settings in its baseline, each of them checked before."""
        if levels.get(DATA) in self.data_sets:
            there = self.model_copy(update={"data": self.data_sets[levels[DATA]]}).of_data_sets({})
            return there.with_levels({name: level for name, level in levels.items() if name != DATA}, tuned=tuned)
        sections = {name: dict(section) for name in SECTIONS if (section := getattr(self, name)) is not None}
        components = {name: factor for name, factor in self.factors.items() if isinstance(factor, ComponentFactor)}
        for path, value in {**self._settings_of(levels), **(tuned or {})}.items():
            section, _, key = path.partition(".")
            sections[section] = replaced(sections[section], key, tuple(value) if isinstance(value, list) else value)
        for name, factor in components.items():
            if levels[name] == factor.levels[1]:
                model = sections["model"]
                sections["model"] = {
                    **model,
                    "remove": (*model["remove"], *factor.remove),
                    "replace": {**model["replace"], **factor.replace},
                }
        return self.model_copy(
            update={name: type(getattr(self, name)).model_validate(values) for name, values in sections.items()}
        )

    def _settings_of(self, levels: Mapping[str, Any]) -> dict[str, Any]:
        """Return what these levels set, by paths; parts of the model set none."""
        return {
            path: value
            for name, factor in self.factors.items()
            if not isinstance(factor, ComponentFactor)
            for level, settings in levels_with_settings(name, factor)
            if is_same(level, levels[name])
            for path, value in settings.items()
        }

    def configuration(self) -> dict[str, Any]:
        """Return what can alter a run's result, but for the seed: data, model, training, the study's seed."""
        sections = {name: getattr(self, name) for name in SECTIONS}
        return {
            **{name: section.configuration() if section is not None else None for name, section in sections.items()},
            "study_seed": self.study_seed,
            **({"replicates": self.replicates.record.plain()} if self.replicates is not None else {}),
        }

    def fixed(self) -> dict[str, Any]:
        """Return what no later execution of the study may change: baseline, data, training, tuning and metric."""
        tuning = {"tune": self.tune.model_dump(mode="json")} if self.tune is not None else {}
        metric = self.metric.model_dump(mode="json", exclude=set() if tuning else {"validation"})
        return {**self.configuration(), "metric": metric, **tuning}


def _data_document(data: Any) -> dict[str, Any]:
    """Return a `data` section as plain values, without what is rarely used and not used there."""
    values = data.model_dump(mode="json")
    usual = (*OF_TASKS, "test") if isinstance(data, OwnData) else ("size", "test") if isinstance(data, Images) else ()
    rare = {key for key in usual if values[key] == type(data).model_fields[key].default}
    return {key: value for key, value in values.items() if key not in rare}


_RARE = ("data", "model", "variants", "forbid", "tune", "metrics", "replicates")
FIXED = (*SECTIONS, "study_seed", "metric", "tune", "replicates")
NOT_FACTORS = (
    *("data.name", "data.root", "data.size", "data.validation", "data.test"),
    *(f"data.{key}" for key in OF_TASKS),
    *("training.name", "training.threads", "model.replace"),
    *("training.optimizer_arguments", "training.schedule_arguments"),
)
"""Paths that may not vary: what is compared has its test examples, split and thread count in common.

No level is a mapping either."""


ONLY_IN_RECIPES = ("training.optimizer_arguments", "training.schedule_arguments")
"""Mappings that no level is, and that a level of several settings may set beside what they are the arguments of."""


def recipe_fields(values: Mapping[str, Any]) -> dict[str, FieldInfo]:
    """Return {path: field} of all that a level of several settings may set, in a study with these sections."""
    section = section_of("training", values)
    more = {path: field for path in ONLY_IN_RECIPES if (field := section.model_fields.get(key_of(path)))}
    return {**factor_fields(values), **more}


def factor_fields(values: Mapping[str, Any]) -> dict[str, FieldInfo]:
    """Return {path: field} of all that can be a factor of a study with these sections.

    The arguments of a user's model or training function are factors; a model's name is one where it is free.
    """
    fields = {f"{section}.{key}": field for section in SECTIONS for key, field in _fields(section, values).items()}
    return {path: field for path, field in fields.items() if path not in NOT_FACTORS}


def _fields(section: str, values: Mapping[str, Any]) -> dict[str, FieldInfo]:
    kind = section_of(section, values)
    own = own_settings(section, values)
    given = {key: field for key, field in kind.model_fields.items() if key != "name" or not names_of(kind)}
    return {**given, **own}


def own_settings(section: str, values: Mapping[str, Any]) -> dict[str, FieldInfo]:
    """Return the arguments of the code that an unchecked section names, and what is inside those that are mappings."""
    inner = values.get(section)
    given = {key: inner[key] for key in own_keys(section, values)} if isinstance(inner, Mapping) else {}
    if section_of(section, values) is Training and isinstance(inner, Mapping):
        arguments = {key: inner[key] for key in map(key_of, ONLY_IN_RECIPES) if isinstance(inner.get(key), Mapping)}
        return {path: OWN for path in _paths(arguments) if "." in path}
    return dict.fromkeys(_paths(given), OWN)


def _paths(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted paths of a nested mapping's values that can be named so, mappings among them."""
    for key, value in mapping.items():
        path = f"{prefix}{key}"
        if "." not in str(key) and is_recordable_name(path) and len(path) <= MAX_KEY:
            yield path
            yield from _paths(value, f"{path}.") if isinstance(value, Mapping) else ()


def key_of(path: str) -> str:
    """Return a path without its section."""
    return path.partition(".")[2]


OWN = FieldInfo(annotation=AnyLevel)
"""What an argument of code may be: any plain value."""


def is_own_training(values: Mapping[str, Any]) -> bool:
    """Say whether an unchecked study trains with a user's function."""
    return section_of("training", values) is OwnTraining


def task_of(values: Mapping[str, Any]) -> TaskName:
    """Return the task of an unchecked study; classification where it names none that there is."""
    data = values.get("data")
    name = data.get("task") if isinstance(data, Mapping) and section_of("data", values) is OwnData else None
    return next((task for task in TASKS if task == name), "classification")


def is_task_unknown(values: Mapping[str, Any]) -> bool:
    """Say whether an unchecked study names a task that there is not: what depends on it cannot be judged."""
    data = values.get("data")
    given = data.get("task", "classification") if isinstance(data, Mapping) else "classification"
    return section_of("data", values) is OwnData and not any(given == task for task in TASKS)


def filled(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an unchecked study with its task's loss, its metric where none is named, and what the task says of it."""
    task, chosen, training = TASKS[task_of(values)], values.get("metric", {}), values.get("training", {})
    if isinstance(training, Mapping) and section_of("training", values) is Training:
        values = {**values, "training": {"loss": task.losses[0], **training}}
    if "factors" in values:
        values = {**values, "factors": with_labels_by_level(values["factors"])}
    if not isinstance(chosen, Mapping):
        return values
    name = chosen.get("name", task.default_metric)
    known = task.metrics.get(name) if isinstance(name, str) else None
    said = {"direction": known.direction, "meaningful": known.meaningful} if known is not None else {}
    if known is None and isinstance(name, str) and (way := declared_directions(values).get(name)) is not None:
        said = {"direction": way}
    return {**values, "metric": {"name": name, **said, **chosen}}


def declared_directions(values: Mapping[str, Any]) -> dict[str, Direction]:
    """Return which way is better of the metrics that an unchecked study declares, as far as it says so."""
    declared = values.get("metrics")
    return directions_of({"metrics": declared}) if isinstance(declared, Mapping) else {}


def known_metrics(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the metrics that questions may be asked on: those of its task, and those that a study declares."""
    declared = values.get("metrics")
    return (
        *TASKS[task_of(values)].metrics,
        *(declared if isinstance(declared, Mapping) else ()),
    )

"""Writes what docs/study-file.md and docs/command-line.md list: every key and every option, from the package itself."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ablation import cli
from ablation.cli.group import ORDER_OF_USE
from ablation.records import TASKS
from ablation.study.expected import expected
from ablation.study.factors import ComponentFactor, LabelledFactor, LabelledRecipe, LabelledVariant
from ablation.study.file import value_text
from ablation.study.looks import PlannedLooks, ReplicatesChoice
from ablation.study.search_spaces import SearchSpace, Tuning
from ablation.study.sections import (
    OF_MODELS,
    SECTIONS,
    Cifar10,
    Cnn,
    Digits,
    Images,
    OwnData,
    OwnMetric,
    OwnModel,
    OwnTraining,
    Section,
    Torchvision,
    Training,
)
from ablation.study.spec import NOT_FACTORS, MetricChoice, Question, StudySpec

TITLES: Mapping[type[Section], str] = {
    StudySpec: "The whole file",
    Digits: "`data` with `name: digits`",
    Cifar10: "`data` with `name: cifar10`",
    Images: "`data` with `name: images`",
    OwnData: "`data` of your own",
    Cnn: "`model` with `name: cnn`",
    Torchvision: "`model` from torchvision",
    OwnModel: "`model` of your own",
    Training: "`training`",
    OwnTraining: "`training` by a function of your own",
    LabelledFactor: "A factor whose levels have labels or a condition",
    LabelledRecipe: "A recipe whose levels have labels or a condition",
    ComponentFactor: "A factor that is a part of the model",
    LabelledVariant: "A listed variant that has a label",
    PlannedLooks: "`seeds` as planned looks",
    ReplicatesChoice: "`replicates`",
    MetricChoice: "`metric`",
    OwnMetric: "A metric of your own in `metrics`",
    Question: "A question",
    Tuning: "`tune`",
    SearchSpace: "The space of a tuned setting",
}
"""Every section, in the order of a study file."""
REMARKS: Mapping[type[Section], str] = {
    OwnData: "Any other key is an argument of the function.",
    Torchvision: "Any other key is an argument of torchvision's function.",
    OwnModel: "Any other key is an argument of the function, and can be a factor.",
    OwnTraining: "Any other key is a setting that the function reads, and can be a factor.",
    OwnMetric: "The engine calls it. Any other key is an argument of the function or of torchmetrics' class, which\n"
    "has `num_classes`, `num_labels`, `task` and `ignore_index` from the data. A training function of your own\n"
    "returns its metrics instead: `metrics: {NAME: maximize}`. No metric is part of a run's identity; one that runs\n"
    "have values of is not changed any more, and one that is added is computed from the outputs that they kept.",
    LabelledFactor: "[Labels](#labels) alter no result, and no name of a run but that of a level which is a mapping.",
    LabelledRecipe: "Without them a recipe is its levels alone: `recipe: {adam: {...}, sgd: {...}}`.",
    ComponentFactor: "It needs `remove` or `replace`.",
    ReplicatesChoice: "It stands in the place of `seeds`. See [data without a test split](#data-without-a-test-split).",
    PlannedLooks: "It needs either `looks`, or `first` and `last`. What is still open is judged at each look.",
    Question: "It needs exactly one of `effect`, `interaction` and `variant`.",
    Tuning: "Any other key is the path of a setting, with the space it is looked for in.",
    SearchSpace: "It needs exactly one of these keys; `log: true` may stand beside `integers`.",
}
MEANINGS: Mapping[tuple[type[Section], str], str] = {
    (StudySpec, "name"): "the study's name in MLflow, Optuna and the report",
    (StudySpec, "description"): "shown in the report and in MLflow",
    (StudySpec, "data"): "the data set; may be left out only where `training` is a function of your own",
    (StudySpec, "model"): "the baseline's model; may be left out only where `training` is a function of your own",
    (StudySpec, "training"): "how the baseline is trained",
    (StudySpec, "factors"): "what is varied: paths into this file with their levels, or parts of the model",
    (StudySpec, "design"): "which combinations of levels are trained",
    (StudySpec, "metric"): "what the variants are compared on",
    (StudySpec, "questions"): "what the report answers with verdicts; by default what the design is for",
    (Digits, "name"): "handwritten digits in gray, 8 × 8 enlarged to 32 × 32, part of scikit-learn",
    (Cifar10, "name"): "32 × 32 color images of 10 classes",
    (Images, "name"): "image files, a folder per class",
    (OwnData, "name"): "a function that returns the splits",
    (OwnData, "root"): "passed to the function; relative to this file",
    (Cnn, "name"): "the built-in convolutional network",
    (Torchvision, "name"): "a classifier of torchvision, without weights",
    (OwnModel, "name"): "a function that returns an `nn.Module`",
    (Training, "epochs"): "passes over the training images",
    (OwnTraining, "name"): "a function that trains one run and returns its metrics",
    (OwnTraining, "threads"): "CPU threads per run; part of the run's identity, because results depend on it",
    (ComponentFactor, "remove"): "modules that are present in the baseline and absent at the other level",
    (ComponentFactor, "replace"): "modules that are the original in the baseline and replaced at the other level",
    (ComponentFactor, "label"): "what people call the part",
    (ComponentFactor, "when"): "the levels of other factors beside which it varies",
    (LabelledFactor, "levels"): "the levels, the baseline's among them",
    (LabelledFactor, "label"): "what people call the factor",
    (LabelledFactor, "labels"): "what people call its levels; only mappings and nested lists need one",
    (LabelledFactor, "when"): "the levels of other factors beside which it varies",
    (LabelledRecipe, "levels"): "what each level sets, by paths into the file; the baseline's among them",
    (LabelledRecipe, "label"): "what people call the factor",
    (LabelledRecipe, "labels"): "what people call its levels; not all need one",
    (LabelledRecipe, "when"): "the levels of other factors beside which it varies",
    (LabelledVariant, "levels"): "what it has otherwise than the baseline",
    (LabelledVariant, "label"): "what people call it",
    (MetricChoice, "name"): "a built-in metric, or one of `metrics`",
    (MetricChoice, "direction"): "whether more or less is better; known of the built-in metrics",
    (MetricChoice, "meaningful"): "differences below this are too small to matter: the half-width of the ROPE",
    (Question, "effect"): "the factor's average effect",
    (Question, "interaction"): "whether one factor's effect depends on the other",
    (Question, "variant"): "a listed variant's difference from the baseline",
    (Question, "levels"): "the two levels that are compared, the second minus the first",
    (Question, "at"): "ask it only where other factors have these levels",
    (Question, "meaningful"): "a half-width of the ROPE of its own",
    (Tuning, "sampler"): "how Optuna chooses the next trial",
    (Tuning, "pruner"): "how hopeless trials are ended early",
    (SearchSpace, "log"): "a log scale",
    (SearchSpace, "linear"): "a linear scale",
    (SearchSpace, "integers"): "whole numbers",
    (SearchSpace, "choices"): "one of these values",
}
"""What a key means, where the package itself has no words for it."""


def study_file_reference() -> str:
    """Return the tables of every key of a study file, of the metrics and of what cannot vary."""
    sections = "\n".join(_section(section, title) for section, title in TITLES.items())
    return f"{sections}\n{_metrics()}\n{_paths_that_cannot_vary()}"


def command_line_reference() -> str:
    """Return every command with its usage and options, in the order of use."""
    return "\n".join(_command(name, cli.main.commands[name]) for name in ORDER_OF_USE)


def keys_without_words() -> set[tuple[type[Section], str]]:
    """Return the keys whose meaning the package does not say."""
    return {
        (section, key) for section in TITLES for key, field in section.model_fields.items() if not field.description
    }


def _section(section: type[Section], title: str) -> str:
    fields = sorted(section.model_fields.items(), key=lambda item: (item[0] != "name", item[0] in OF_MODELS))
    rows = [(f"`{key}`", _allowed(field), _default(field), _meaning(section, key, field)) for key, field in fields]
    remark = f"{REMARKS[section]}\n\n" if section in REMARKS else ""
    return f"### {title}\n\n{remark}{_table(('key', 'may be', 'default', 'meaning'), rows)}"


def _allowed(field: FieldInfo) -> str:
    return expected(field.rebuild_annotation())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "–"
    return "its defaults" if isinstance(value, BaseModel) else f"`{value_text(value)}`"


def _meaning(section: type[Section], key: str, field: FieldInfo) -> str:
    return field.description or MEANINGS[section, key]


def _metrics() -> str:
    rows = [
        (f"`{name}`", metric.label, metric.direction, metric.unit, f"{metric.meaningful or '–'}")
        for name, metric in TASKS["classification"].metrics.items()
    ]
    heads = ("metric", "what it is", "direction", "unit", "`meaningful`")
    return f"### Metrics\n\nThe built-in ones.\n\n{_table(heads, rows)}"


def _paths_that_cannot_vary() -> str:
    return (
        "### What can be a factor\n\n"
        f"Any key of {_list(SECTIONS)}, written `section.key`. Not: {_list(NOT_FACTORS)}, the name of a built-in\n"
        "data set or model. The two mappings can be set by a recipe, and what the file has in them is a factor each.\n"
    )


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _command(name: str, command: click.Command) -> str:
    ctx = click.Context(command, info_name=f"ablation {name}")
    usage = " ".join([ctx.command_path, *command.collect_usage_pieces(ctx)])
    options = [param for param in command.params if isinstance(param, click.Option)]
    rows = [(f"`{left}`", _option_text(one, right)) for one in options for left, right in _help(one, ctx)]
    example = f"{ctx.command_path} {getattr(command, 'example', '')}"
    said = inspect.cleandoc(command.help or "")
    head = f"### {ctx.command_path}\n\n{said}\n\n```\n{usage}\n```\n\nExample: `{example}`\n\n"
    return f"{head}{_table(('option', 'meaning'), rows)}"


def _help(param: click.Parameter, ctx: click.Context) -> Iterable[tuple[str, str]]:
    record = param.get_help_record(ctx)
    return [record] if record is not None else []


def _option_text(param: click.Parameter, text: str) -> str:
    said = " ".join(text.split())
    return f"{said} Also from the environment: `{param.envvar}`." if param.envvar else said


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    """Escape what Markdown would take for a column, a tag or emphasis; inside of code only columns are."""
    parts = text.replace("|", r"\|").split("`")
    return "`".join(part if index % 2 else re.sub(r"([<*])", r"\\\1", part) for index, part in enumerate(parts))

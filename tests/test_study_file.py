"""Study files: what is accepted, what is refused in which words, and that nothing else ever comes out."""

import contextlib
import copy
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factories import make_plan
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.errors import AblationError, StudyFileError
from ablation.records import Plan
from ablation.study import Study, StudySpec, load_study, parse_study
from ablation.study.checks.whole import check
from ablation.study.file import MAX_BYTES, MAX_DEPTH, MAX_VALUES, location_of, path_of, read_document
from ablation.study.looks import MAX_LOOKS, MAX_SEEDS, SEEDS_FORM, expanded, next_look
from ablation.study.plan_json import plan_from_json, plan_to_json

STUDIES = Path(__file__).parents[1] / "studies"

VALID = """\
name: small
data: {name: digits}
model: {name: cnn, depth: 2}
training: {epochs: 2}
factors:
  model.depth: [2, 3]
seeds: 2
"""

EVERYTHING: dict[str, Any] = {
    "name": "everything",
    "description": "all keys of the format",
    "data": {
        "name": "images",
        "root": "photos",
        "limit": 100,
        "validation": 0.2,
        "augmentation": "flip",
        "test": 0.25,
        "size": [48, 64],
    },
    "model": {
        "name": "cnn",
        "depth": 2,
        "width": 8,
        "kernel": 3,
        "dense": [16, 8],
        "normalization": "group",
        "normalization_placement": "after",
        "groups": 4,
        "dropout": 0.1,
        "activation": "gelu",
        "repeats": 1,
        "remove": ["blocks.block1_repeat1"],
        "replace": {"*.activation": "SiLU"},
        "weights": "start.pt",
        "frozen": ["blocks.block1"],
    },
    "training": {
        "epochs": 2,
        "batch_size": 32,
        "optimizer": "sgd",
        "optimizer_arguments": {"nesterov": True},
        "learning_rate": 0.1,
        "schedule": "MultiStepLR",
        "schedule_arguments": {"milestones": [1, 2], "gamma": 0.5},
        "schedule_unit": "step",
        "warmup": 0.5,
        "momentum": 0.8,
        "weight_decay": 0.001,
        "gradient_clipping": 1.0,
        "loss": "losses.py:focal",
        "label_smoothing": 0.0,
        "class_weights": "none",
        "patience": "none",
        "ema": "none",
        "epoch_choice": "best-validation",
        "precision": "bf16",
        "threads": 2,
    },
    "factors": {"model.depth": [2, 3], "model.dense": [[16, 8], []], "training.learning_rate": [0.1, 0.01]},
    "design": "factorial",
    "variants": {},
    "forbid": [{"model.depth": 3, "model.dense": [], "training.learning_rate": 0.1}],
    "tune": {
        "training.weight_decay": {"log": [0.0001, 0.01], "linear": None, "integers": None, "choices": None},
        "trials": 3,
        "seeds": 1,
        "sampler": "random",
        "pruner": "none",
        "also_untuned": False,
    },
    "seeds": {"looks": [3, 5]},
    "study_seed": 7,
    "metric": {"name": "test_loss", "direction": "minimize", "meaningful": 0.01},
    "metrics": {},
    "questions": [
        {"effect": "model.depth", "at": {"model.dense": [16, 8]}, "on": "test_accuracy", "meaningful": 0.01},
        {"interaction": ["model.depth", "model.dense"]},
    ],
    "alpha": 0.1,
    "collapse_margin": 0.05,
    "budget": {"hours": 2.0, "minutes": 30.0},
}
OR_YOUR_OWN = "; or your own: 'package.module:attribute' or 'path/to/file.py:attribute'"
JARGON = ("Traceback", "pydantic", "validation error", "Input should", "tuple", "literal[", "function-", "dict", "None")


def parse(text: str | bytes) -> Study:
    return parse_study(text if isinstance(text, bytes) else text.encode(), source="f.yaml")


def spec_of(text: str) -> StudySpec:
    """Return what a file says, without the runs that it plans."""
    return check(read_document(text.encode(), source="f.yaml").values, source="f.yaml", lines={})[0]


def errors(text: str | bytes) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        parse(text)
    return [str(problem) for problem in caught.value.problems]


def valid_with(old: str, new: str) -> str:
    assert old in VALID
    return VALID.replace(old, new)


def setting(line: str) -> str:
    return f"{VALID}{line}\n"


def looks(listed: str) -> str:
    return valid_with("seeds: 2", f"seeds: {{looks: [{listed}]}}")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_study_is_valid_and_named_as_its_file(path: Path) -> None:
    study = load_study(path)

    assert study.name == path.stem
    assert study.spec.metric.meaningful == 0.005


def test_the_quick_study_varies_depth_and_normalization_on_embedded_data() -> None:
    study = load_study(STUDIES / "quick.yaml")

    assert study.spec.data.name == "digits"
    assert dict(study.spec.factors) == {"model.depth": (2, 3), "model.normalization": ("none", "batch")}
    assert [variant.name for variant in study.variants] == [
        "depth=2,normalization=none",
        "depth=2,normalization=batch",
        "depth=3,normalization=none",
        "depth=3,normalization=batch",
    ]


@pytest.mark.parametrize("name", ["cifar10-batch-norm", "cifar10-depth-norm"])
def test_batch_norm_stands_after_the_activation_in_the_assignments_studies(name: str) -> None:
    variants = load_study(STUDIES / f"{name}.yaml").variants

    placements = {
        variant.configuration["model"].get("normalization_placement")
        for variant in variants
        if variant.levels["model.normalization"] == "batch"
    }
    assert placements == {"after"}
    assert all(variant.settings.data.validation == "none" for variant in variants)


def test_the_crossed_cifar10_study_has_depth_3_and_4_with_and_without_batch_norm() -> None:
    spec = load_study(STUDIES / "cifar10-depth-norm.yaml").spec

    assert dict(spec.factors) == {"model.depth": (3, 4), "model.normalization": ("none", "batch")}
    assert [question.factors for question in spec.questions if question.interaction] == [
        ("model.depth", "model.normalization")
    ]


def test_name_data_model_and_factors_suffice() -> None:
    spec = parse("name: n\ndata: {name: digits}\nmodel: {name: cnn}\nfactors: {model.depth: [3, 4]}\n").spec

    assert (spec.seeds, spec.alpha, spec.design, spec.data.validation) == (5, 0.05, "factorial", 0.1)
    assert (spec.metric.name, spec.metric.direction, spec.metric.meaningful) == ("test_accuracy", "maximize", 0.005)


def test_every_key_of_the_format_is_accepted() -> None:
    spec = parse(json.dumps(EVERYTHING)).spec

    assert spec.model_dump(mode="json") == {
        **EVERYTHING,
        "replicates": None,
        "questions": [
            {"interaction": None, "variant": None, "levels": None, **EVERYTHING["questions"][0]},
            {
                **dict.fromkeys(("effect", "variant", "levels", "on", "meaningful")),
                "at": {},
                **EVERYTHING["questions"][1],
            },
        ],
    }


@pytest.mark.parametrize(
    ("written", "looks"),
    [
        ("7", (7,)),
        ("1", (1,)),
        ("10000", (10_000,)),
        ("{looks: [5, 8, 12, 20]}", (5, 8, 12, 20)),
        ("{looks: [2, 10000]}", (2, 10_000)),
        ("{looks: [5]}", (5,)),
        ("{first: 5, last: 20}", (5, 8, 12, 20)),
        ("{first: 3, last: 12}", (3, 5, 8, 12)),
        ("{first: 2, last: 3}", (2, 3)),
        ("{first: 5, last: 6}", (5, 6)),
        ("{first: 5, last: 7}", (5, 7)),
        ("{first: 4, last: 230}", (4, 6, 9, 14, 21, 32, 48, 72, 108, 230)),
    ],
)
def test_seeds_are_a_number_or_planned_looks(written: str, looks: tuple[int, ...]) -> None:
    study = parse(valid_with("seeds: 2", f"seeds: {written}"))

    assert (looks, looks[-1]) == (study.spec.looks, study.spec.most_seeds)
    assert (looks[-1], looks) == (study.locked().seeds, study.locked().schedule)
    assert set(range(looks[-1])) == {run.seed for run in study.runs(data_digest="d")}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("7", 7),
        ("{looks: [5]}", 5),
        ("{looks: [5, 8, 12]}", {"looks": [5, 8, 12]}),
        ("{first: 5, last: 12}", {"looks": [5, 8, 12]}),
    ],
)
def test_what_is_kept_of_seeds_is_a_number_or_the_looks(written: str, kept: Any) -> None:
    assert kept == parse(valid_with("seeds: 2", f"seeds: {written}")).spec.document()["seeds"]


@given(st.integers(2, 2000), st.integers(1, 8000))
def test_looks_go_from_the_first_to_the_last_by_half_as_many_again(first: int, more: int) -> None:
    looks = expanded(first, first + more)

    assert (first, first + more) == (looks[0], looks[-1])
    assert list(looks) == sorted(set(looks))
    assert [next_look(seeds) for seeds in looks[:-2]] == list(looks[1:-1])
    assert all(2 * after >= 3 * before > 2 * (after - 1) for before, after in itertools.pairwise(looks[:-1]))
    assert looks[-1] < next_look(next_look(looks[-2]))


@given(st.integers(2, MAX_SEEDS - 1), st.data())
def test_first_and_last_are_the_looks_or_are_said_to_be_too_many(first: int, data: st.DataObject) -> None:
    last = data.draw(st.integers(first + 1, MAX_SEEDS))
    text = valid_with("seeds: 2", f"seeds: {{first: {first}, last: {last}}}")

    if len(expanded(first, last)) > MAX_LOOKS:
        assert f"from {first} to {last} there are {len(expanded(first, last))} looks" in errors(text)[0]
    else:
        assert expanded(first, last) == spec_of(text).looks


def test_the_baselines_loss_is_the_tasks_where_losses_are_a_factor() -> None:
    text = valid_with("model.depth: [2, 3]", "training.loss: [huber, mse]")
    text = text.replace("{name: digits}", '{name: "d:load", task: regression}')

    assert {"training.loss": "mse"} == parse_study(text.encode(), source="s.yaml").variants[0].levels


def test_without_questions_a_study_asks_for_the_effect_of_each_factor() -> None:
    study = parse(valid_with("[2, 3]\n", "[2, 3]\n  model.width: [32, 64]\n"))

    assert [question.effect for question in study.questions] == ["model.depth", "model.width"]


def test_runs_go_a_whole_round_of_variants_for_one_seed_before_the_next() -> None:
    runs = parse(VALID).runs(data_digest="d")

    assert [run.name for run in runs] == ["depth=2/seed-0", "depth=3/seed-0", "depth=2/seed-1", "depth=3/seed-1"]
    assert len({run.identity for run in runs}) == 4


def test_the_baseline_is_the_first_variant_wherever_its_level_stands() -> None:
    variants = parse(valid_with("[2, 3]", "[4, 3, 2]")).variants

    assert [(variant.levels["model.depth"], variant.is_baseline) for variant in variants] == [
        (2, True),
        (4, False),
        (3, False),
    ]


def test_a_factor_is_named_by_its_whole_path_where_its_last_part_is_shared() -> None:
    from ablation.study.level_names import variant_name

    levels = {"model.limit": 1, "data.limit": 2, "model.dense": [64, 32], "model.flag": True}

    assert variant_name(levels, list(levels)) == "model.limit=1,data.limit=2,dense=64-32,flag=true"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E-3", 0.001), (".5e-2", 0.005), ("+1e-3", 0.001), ("1", 1.0), ("0.01", 0.01)],
)
def test_numbers_are_numbers_in_every_decimal_notation(text: str, value: float) -> None:
    assert parse(valid_with("epochs: 2", f"learning_rate: {text}")).spec.training.learning_rate == value


@pytest.mark.parametrize(
    "text",
    ["0x10", "0o10", "0b1", "1_000", ".nan", ".NaN", ".inf", "-.inf", "1e999", "2001-01-01", "1:30", "no", "'5'"],
)
def test_what_is_no_decimal_finite_number_is_text(text: str) -> None:
    plain = text.strip("'")

    assert errors(setting(f"alpha: {text}")) == [
        f"must be a number greater than 0 and at most 0.5, not '{plain}' @ alpha (line 8)"
    ]


def test_no_and_yes_are_words() -> None:
    assert read_document(b"a: no\nb: yes\nc: off\n", source="f").values == {"a": "no", "b": "yes", "c": "off"}


EITHER_FORM = "write either {looks: [5, 8, 12, 20]} or {first: 5, last: 20} @ seeds (line 7)"
FOLDS = "folds stand in `replicates`: `replicates: {folds: 5, repeats: 2}`, for data without a test split"
ONE_ERROR = {
    # Files that are no study at all
    "": "a study file is a mapping of keys to values; this is not",
    "# only a comment\n": "a study file is a mapping of keys to values; this is not",
    "- 1\n": "a study file is a mapping of keys to values; this is not",
    "three": "a study file is a mapping of keys to values; this is not",
    "a: b: c": "is not valid YAML: mapping values are not allowed here (line 1)",
    "a: [1,\n": "is not valid YAML: expected the node content, but found '<stream end>' (line 2)",
    "a:\n\tb: 1\n": "is not valid YAML: found character '\\t' that cannot start any token (line 2)",
    "a: 1\nb: \x07\n": "is not valid YAML: has the character #x0007 (line 2)",
    'a: "\\UFFFFFFFF"\n': "is not valid YAML: has an escape that stands for no character",
    f"{VALID}---\n{VALID}": "holds more than one document; a study file is one (line 8)",
    # Anchors, aliases, tags, keys
    setting("alpha: &a 0.1"): "anchors and aliases (& and *) are not allowed; write it out (line 8)",
    setting("alpha: *a"): "anchors and aliases (& and *) are not allowed; write it out (line 8)",
    setting("*a : 1"): "anchors and aliases (& and *) are not allowed; write it out (line 8)",
    setting("alpha: !!float 0.1"): "tags (!) are not allowed; write the plain value (line 8)",
    setting("alpha: ! 0.1"): "tags (!) are not allowed; write the plain value (line 8)",
    setting("x: !!python/object/apply:os.system [ls]"): "tags (!) are not allowed; write the plain value (line 8)",
    setting("name: again"): "stands twice, first on line 1 @ name (line 8)",
    valid_with("depth: 2", "depth: 2, depth: 3"): "stands twice, first on line 3 @ model.depth (line 3)",
    setting("? [1, 2]\n: 3"): "a key must be plain text (line 8)",
    setting("? {a: {b: 1}}\n: [1, {c: 2}]"): "a key must be plain text (line 8)",
    # Unknown keys
    setting("sedes: 5"): "unknown key 'sedes'; did you mean 'seeds'? @ sedes (line 8)",
    valid_with("epochs", "epoch"): "unknown key 'epoch'; did you mean 'epochs'? @ training.epoch (line 4)",
    setting("seed: 42"): (
        "unknown key 'seed'; the number that all random streams come from is `study_seed`; `seeds` is the number of"
        " runs per variant @ seed (line 8)"
    ),
    setting("folds: 5"): (f"unknown key 'folds'; {FOLDS} @ folds (line 8)"),
    setting("metric: {nam: x}"): "unknown key 'nam'; did you mean 'name'? @ metric.nam (line 8)",
    setting(
        "metric: {<<: {name: x}}"
    ): "unknown key '<<'; allowed: direction, meaningful, name, validation @ metric.<< (line 8)",
    setting("metric: {~: x}"): "unknown key '~'; allowed: direction, meaningful, name, validation @ metric.~ (line 8)",
    setting("metric: {'': x}"): "unknown key ''; allowed: direction, meaningful, name, validation @ metric.'' (line 8)",
    setting(
        "metric: {größe: x}"
    ): "unknown key 'größe'; allowed: direction, meaningful, name, validation @ metric.größe (line 8)",
    setting('metric: {"a\\e\\n": x}'): (
        'unknown key "a\\u001b\\n"; allowed: direction, meaningful, name, validation @ metric."a\\u001b\\n" (line 8)'
    ),
    valid_with("{name: digits}", "{name: digits, root: x}"): (
        "unknown key 'root'; allowed: augmentation, limit, name, validation @ data.root (line 2)"
    ),
    # Missing keys
    valid_with("name: small\n", ""): "is missing; for example `name: my-study` @ name (line 1)",
    valid_with("{name: digits}", "{}"): "is missing; built in: digits, cifar10, images @ data.name (line 2)",
    valid_with("digits", "images"): "is missing; for example `root: photos.tar.gz` @ data.root (line 2)",
    valid_with("name: cnn, ", ""): "is missing; built in: cnn, torchvision:NAME @ model.name (line 3)",
    # Wrong types and ranges
    valid_with("{name: digits}", "5"): "must be a mapping of keys to values, not 5 @ data (line 2)",
    valid_with("{name: cnn, depth: 2}", "[]"): "must be a mapping of keys to values, not [] @ model (line 3)",
    valid_with("{epochs: 2}", "fast"): "must be a mapping of keys to values, not 'fast' @ training (line 4)",
    setting("metric: accuracy"): (
        "must be a mapping of keys to values, not 'accuracy'; for example `metric: {name: test_accuracy}`"
        " @ metric (line 8)"
    ),
    setting("metric: {name: {a: 1}}"): "must be the name of a metric, not {a: 1} @ metric.name (line 8)",
    valid_with("digits}", "digits, validation: 0.9}"): (
        "must be 'none', or a number greater than 0 and at most 0.5, not 0.9 @ data.validation (line 2)"
    ),
    valid_with("digits}", "digits, limit: 1.5}"): (
        "must be a whole number from 1 to 1000000000, not 1.5 @ data.limit (line 2)"
    ),
    valid_with("depth: 2", "depth: true"): "must be a whole number from 1 to 5, not true @ model.depth (line 3)",
    valid_with("depth: 2", "depth: 2.0"): "must be a whole number from 1 to 5, not 2.0 @ model.depth (line 3)",
    valid_with(
        "depth: 2", "dense: [8, x]"
    ): "must be a whole number from 1 to 65536, not 'x' @ model.dense[1] (line 3)",
    valid_with(
        "depth: 2", "dropout: 1"
    ): "must be a number of at least 0 and less than 1, not 1 @ model.dropout (line 3)",
    valid_with("depth: 2", "normalization: no"): (
        "must be 'none', 'batch', 'layer', 'group' or 'instance', not 'no' @ model.normalization (line 3)"
    ),
    valid_with("seeds: 2", "seeds: 0"): "must be a whole number from 1 to 10000, not 0 @ seeds (line 7)",
    valid_with("seeds: 2", f"seeds: 1{'0' * 30}"): (
        f"must be a whole number from 1 to 10000, not 1{'0' * 30} @ seeds (line 7)"
    ),
    valid_with("seeds: 2", "seeds:"): "must be a whole number from 1 to 10000, not null @ seeds (line 7)",
    valid_with("seeds: 2", "seeds: 3,5"): f"must be {SEEDS_FORM}, not '3,5' @ seeds (line 7)",
    valid_with("seeds: 2", "seeds: 5.0"): "must be a whole number from 1 to 10000, not 5.0 @ seeds (line 7)",
    valid_with("seeds: 2", "seeds:\n  looks:\n    - 5\n    - 3"): (
        "looks must rise, and 3 stands after 5 @ seeds.looks (line 8)"
    ),
    looks("5, 8, 8"): "looks must rise, and 8 stands after 8 @ seeds.looks (line 7)",
    looks("1, 5"): "must be a whole number from 2 to 10000, not 1 @ seeds.looks[0] (line 7)",
    looks("1"): "must be a whole number from 2 to 10000, not 1 @ seeds.looks[0] (line 7)",
    looks("5, 10001"): "must be a whole number from 2 to 10000, not 10001 @ seeds.looks[1] (line 7)",
    looks("5, 8.0"): "must be a whole number from 2 to 10000, not 8.0 @ seeds.looks[1] (line 7)",
    looks("true, 8"): "must be a whole number from 2 to 10000, not true @ seeds.looks[0] (line 7)",
    looks(""): "needs at least one number of seeds, such as [5, 8, 12, 20] @ seeds.looks (line 7)",
    looks("2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"): (
        "must be a list of 1 to 10 numbers of seeds that rise, such as [5, 8, 12, 20],"
        " not [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12] @ seeds.looks (line 7)"
    ),
    valid_with("seeds: 2", "seeds: {looks: 5}"): (
        "must be a list of 1 to 10 numbers of seeds that rise, such as [5, 8, 12, 20], not 5 @ seeds.looks (line 7)"
    ),
    valid_with("seeds: 2", "seeds: {}"): f"is empty; {EITHER_FORM}",
    valid_with("seeds: 2", "seeds: {looks: }"): f"is empty; {EITHER_FORM}",
    valid_with("seeds: 2", "seeds: {first: 5}"): f"has first; {EITHER_FORM}",
    valid_with("seeds: 2", "seeds: {last: 5}"): f"has last; {EITHER_FORM}",
    valid_with("seeds: 2", "seeds: {looks: [5, 8], first: 5}"): f"has looks and first; {EITHER_FORM}",
    valid_with("seeds: 2", "seeds: {looks: [5, 8], first: 5, last: 8}"): (
        f"has looks and first and last; {EITHER_FORM}"
    ),
    valid_with("seeds: 2", "seeds: {first: 5, last: 5}"): (
        "must be more than first, which is 5, not 5 @ seeds.last (line 7)"
    ),
    valid_with("seeds: 2", "seeds: {first: 1, last: 20}"): (
        "must be a whole number from 2 to 10000, not 1 @ seeds.first (line 7)"
    ),
    valid_with("seeds: 2", "seeds: {first: 5, last: 10001}"): (
        "must be a whole number from 2 to 10000, not 10001 @ seeds.last (line 7)"
    ),
    valid_with("seeds: 2", "seeds: {first: 5, last: 10000}"): (
        "from 5 to 10000 there are 19 looks, and a study has at most 10; begin with more seeds, end with fewer, or list"
        " the looks: `looks: [5, 8, 12, 20]` @ seeds (line 7)"
    ),
    valid_with("seeds: 2", "seeds: {looks: [5, 8], folds: 3}"): f"unknown key 'folds'; {FOLDS} @ seeds.folds (line 7)",
    valid_with("seeds: 2", "seeds: {folds: 3}"): f"unknown key 'folds'; {FOLDS} @ seeds.folds (line 7)",
    valid_with("seeds: 2", "seeds: {looks: [5, 8]}\nfolds: 3"): f"unknown key 'folds'; {FOLDS} @ folds (line 8)",
    valid_with("seeds: 2", "seeds: {look: [5, 8]}"): "unknown key 'look'; did you mean 'looks'? @ seeds.look (line 7)",
    setting("looks: [5, 8]"): (
        "unknown key 'looks'; planned looks stand in `seeds`: `seeds: {looks: [5, 8, 12, 20]}` @ looks (line 8)"
    ),
    setting("description: 5"): "must be text of at most 5000 characters, not 5 @ description (line 8)",
    setting('description: "\\ud800"'): 'must be text of at most 5000 characters, not "\\ud800" @ description (line 8)',
    valid_with("small", "a/b"): (
        "must be text of at most 200 letters, digits and ._+=,@[]-, a letter or digit first, not 'a/b' @ name (line 1)"
    ),
    valid_with("digits}", 'images, root: "a\\0b"}'): 'must be a path, not "a\\u0000b" @ data.root (line 2)',
    valid_with("digits}", "images, root: a, size: 0}"): (
        "must be a whole number of pixels from 1 to 4096, or two of them as [height, width], not 0 @ data.size (line 2)"
    ),
    valid_with("digits}", "images, root: a, size: [1, 2, 3]}"): (
        "must be a whole number of pixels from 1 to 4096, or two of them as [height, width], not [1, 2, 3] "
        "@ data.size (line 2)"
    ),
    valid_with("digits}", "images, root: a, size: 64px}"): (
        "must be a whole number of pixels from 1 to 4096, or two of them as [height, width], not '64px' "
        "@ data.size (line 2)"
    ),
    # Names of models, data and metrics
    valid_with("cnn", "resnet99"): (
        "unknown model 'resnet99'; a model of torchvision is written 'torchvision:resnet99'; built in: cnn,"
        f" torchvision:NAME{OR_YOUR_OWN} @ model.name (line 3)"
    ),
    valid_with("cnn", "mlp"): (
        f"unknown model 'mlp'; built in: cnn, torchvision:NAME{OR_YOUR_OWN} @ model.name (line 3)"
    ),
    valid_with("digits", "mnist"): (
        f"unknown data 'mnist'; built in: digits, cifar10, images{OR_YOUR_OWN} @ data.name (line 2)"
    ),
    valid_with("digits", "[1]"): (
        f"unknown data [1]; built in: digits, cifar10, images{OR_YOUR_OWN} @ data.name (line 2)"
    ),
    setting("metric: {name: test_acuracy}"): (
        "unknown metric 'test_acuracy'; did you mean 'test_accuracy'? @ metric.name (line 8)"
    ),
    setting("metric: {name: validation_accuracy}"): (
        "unknown metric 'validation_accuracy'; runs are compared on test: validation is for tuning and for"
        " training.epoch_choice @ metric.name (line 8)"
    ),
    setting("metric: {name: test_rmse}"): (
        "unknown metric 'test_rmse'; it is measured where `data.task` is regression @ metric.name (line 8)"
    ),
    setting("metric: {name: f1}"): (
        "unknown metric 'f1'; known: test_accuracy, test_loss, test_brier_score, learning_curve_area,"
        " final_train_accuracy, final_train_loss, generalization_gap, training_seconds; declare a metric of your own:"
        " `metrics: {f1: {function: 'm.py:NAME', direction: maximize}}`, or by the name of torchmetrics'"
        " (`torchmetrics:MulticlassF1Score`) @ metric.name (line 8)"
    ),
    setting("metric: {name: test_loss, direction: maximize}"): (
        "must be 'minimize' for test_loss, not 'maximize' @ metric.direction (line 8)"
    ),
    # Factors
    valid_with("  model.depth: [2, 3]\n", ""): (
        "must be a mapping of at least one factor to its levels, such as {model.depth: [3, 4]}, not null"
        " @ factors (line 5)"
    ),
    valid_with("model.depth:", "model.dept:"): (
        "unknown factor 'model.dept'; did you mean 'model.depth'? @ factors.model.dept (line 6)"
    ),
    valid_with("model.depth:", "depth:"): (
        "unknown factor 'depth'; did you mean 'model.depth'? @ factors.depth (line 6)"
    ),
    valid_with("model.depth:", "data.root:"): (
        "unknown factor 'data.root'; it makes another data set: name several as a list, `data: [{...}, {...}]`, and"
        " every variant is trained on each @ factors.data.root (line 6)"
    ),
    valid_with("model.depth:", "data.limits:"): (
        "unknown factor 'data.limits'; did you mean 'data.limit'? @ factors.data.limits (line 6)"
    ),
    valid_with("[2, 3]", "{min: 1, max: 3}"): (
        "give the levels as a list, the baseline's among them: `model.depth: [LEVEL, LEVEL]`"
        " @ factors.model.depth (line 6)"
    ),
    valid_with("[2, 3]", "[2]"): ("needs at least one level besides the baseline's 2 @ factors.model.depth (line 6)"),
    valid_with("[2, 3]", "[]"): "needs at least one level besides the baseline's 2 @ factors.model.depth (line 6)",
    valid_with("[2, 3]", "3"): (
        "must be a list of levels, the baseline's among them, not 3 @ factors.model.depth (line 6)"
    ),
    valid_with("[2, 3]", "\n  - 2\n  - three"): (
        "must be a whole number from 1 to 5, not 'three' @ factors.model.depth[1] (line 8)"
    ),
    valid_with("[2, 3]", "[2, null]"): "must be a whole number from 1 to 5, not null @ factors.model.depth[1] (line 6)",
    valid_with("[2, 3]", "[2, [3, [4]]]"): (
        "must be a whole number from 1 to 5, not [3, [4]] @ factors.model.depth[1] (line 6)"
    ),
    valid_with("[2, 3]", "[2, {a: 1}]"): (
        "must be a whole number from 1 to 5, not {a: 1} @ factors.model.depth[1] (line 6)"
    ),
    valid_with("[2, 3]", "[2, 3, 3]"): "level 3 stands twice @ factors.model.depth[2] (line 6)",
    valid_with("[2, 3]", "[3, 4]"): (
        "the baseline's level 2 is missing from the factor's levels; add it, or set model.depth to one of them"
        " @ factors.model.depth (line 6)"
    ),
    valid_with("model.depth: [2, 3]", "data.limit: [null, 5]"): (
        "must be a whole number from 1 to 1000000000, not null @ factors.data.limit[0] (line 6)"
    ),
    valid_with("model.depth: [2, 3]", "model.groups: [8, 4]"): (
        "variants groups=8 and groups=4 resolve to the same configuration: nothing there depends on model.groups"
        " @ factors.model.groups (line 6)"
    ),
    # Questions
    setting("questions: 5"): (
        "must be a list of at most 100 questions, such as [{effect: model.depth}], not 5 @ questions (line 8)"
    ),
    setting("questions: [5]"): "must be a mapping of keys to values, not 5 @ questions[0] (line 8)",
    setting("questions: [{}]"): (
        "a question has one of `effect: FACTOR`, `interaction: [FACTOR, FACTOR]` and `variant: NAME`"
        " @ questions[0] (line 8)"
    ),
    setting("questions: [{effect: model.dept}]"): (
        "'model.dept' is not a factor of this study; did you mean 'model.depth'? @ questions[0].effect (line 8)"
    ),
    setting("questions: [{interaction: [model.depth]}]"): (
        "must be a list of two factors, such as [model.depth, model.normalization], not ['model.depth']"
        " @ questions[0].interaction (line 8)"
    ),
    setting("questions: [{interaction: [model.depth, model.depth]}]"): (
        "an interaction is of two different factors @ questions[0].interaction (line 8)"
    ),
    setting("questions: [{effect: model.depth, on: test_los}]"): (
        "unknown metric 'test_los'; did you mean 'test_loss'? @ questions[0].on (line 8)"
    ),
    setting("questions: [{effect: model.depth}, {effect: model.depth, on: test_accuracy}]"): (
        "asks what a question before it asks @ questions[1] (line 8)"
    ),
    # Selection on test
    valid_with("{name: digits}", "{name: digits, validation: none}").replace(
        "epochs: 2", "epoch_choice: best-validation"
    ): ("choosing an epoch needs a validation split, and data.validation is none @ training.epoch_choice (line 4)"),
    valid_with("epochs: 2", "precision: fp16"): (
        "must be 'fp32', 'tf32' or 'bf16', not 'fp16' @ training.precision (line 4)"
    ),
    # Designs
    setting("design: grid"): (
        "must be 'factorial', 'one-at-a-time', 'leave-one-out', 'add-one', 'leave-one-out+add-one' or 'listed',"
        " not 'grid' @ design (line 8)"
    ),
    setting("design: listed"): (
        "is missing: design listed needs them; for example `variants: {small: {model.depth: 2}}` @ variants (line 1)"
    ),
    setting("variants: {small: {model.depth: 3}}"): (
        "are for design listed; this study's is factorial @ variants (line 8)"
    ),
    setting("design: listed\nvariants: {small: {model.dept: 3}}"): (
        "'model.dept' is not a factor of this study; did you mean 'model.depth'? @ variants.small.model.dept (line 9)"
    ),
    setting("design: listed\nvariants: {small: {model.depth: 4}}"): (
        "4 is none of its levels: 2, 3 @ variants.small.model.depth (line 9)"
    ),
    setting("design: listed\nvariants: {small: {model.depth: 2}}"): (
        "is the same as baseline: no factor differs @ variants.small (line 9)"
    ),
    valid_with("[2, 3]", "[2, 3, 4]") + "design: leave-one-out\n": (
        "design leave-one-out needs factors of two levels, the part there or not; it has 3"
        " @ factors.model.depth (line 6)"
    ),
    setting("forbid: [{model.depth: 2}]"): (
        "forbids the baseline, which every variant is compared with @ forbid (line 8)"
    ),
    setting("forbid: [{model.width: 2}]"): (
        "'model.width' is not a factor of this study; did you mean 'model.depth'? @ forbid[0].model.width (line 8)"
    ),
    setting("questions: [{effect: model.depth, at: {model.depth: 3}}]"): (
        "'model.depth' is what the question is about @ questions[0].at.model.depth (line 8)"
    ),
    setting("questions: [{variant: small}]"): (
        "'small' is not a listed variant of this study @ questions[0].variant (line 8)"
    ),
    # Parts of the model
    valid_with("model.depth: [2, 3]", "block: {remov: [blocks.block2]}"): (
        "unknown key 'remov'; did you mean 'remove'? @ factors.block.remov (line 6)"
    ),
    valid_with("model.depth: [2, 3]", "block: {}"): (
        "needs `remove: [NAME, ...]` or `replace: {NAME: CLASS}` @ factors.block (line 6)"
    ),
    valid_with("model.depth: [2, 3]", "block: {remove: 5}"): (
        "must be a list of names of modules, such as [layer3.1, '*.bn2'], not 5 @ factors.block.remove (line 6)"
    ),
    # Tuning
    setting("tune: {trials: 9}"): (
        "names no setting to tune; for example `training.learning_rate: {log: [1e-4, 1e-2]}` @ tune (line 8)"
    ),
    setting("tune: {training.learning_rat: {log: [1e-4, 1e-2]}}"): (
        "there is no setting 'training.learning_rat'; did you mean 'training.learning_rate'?"
        " @ tune.training.learning_rat (line 8)"
    ),
    setting("tune: {model.depth: {integers: [1, 3]}}"): (
        "model.depth is a factor of this study: it is compared, so it cannot be tuned @ tune.model.depth (line 8)"
    ),
    setting("tune: {training.learning_rate: {log: [1e-2, 1e-4]}}"): (
        "the lower bound 0.01 is not below the upper 0.0001 @ tune.training.learning_rate (line 8)"
    ),
    setting("tune: {training.learning_rate: {log: [1e-4, 1e4]}}"): (
        "a value must be a number greater than 0 and at most 1000, not 10000.0 @ tune.training.learning_rate (line 8)"
    ),
    setting("tune: {training.learning_rate: [1e-4, 1e-2]}"): (
        "must be a mapping of keys to values, not [0.0001, 0.01] @ tune.training.learning_rate (line 8)"
    ),
    valid_with("{name: digits}", "{name: digits, validation: none}")
    + "tune: {training.learning_rate: {log: [1e-4, 1e-2]}}\n": (
        "tuning needs a validation split, and data.validation is none @ tune (line 8)"
    ),
    # Own code
    valid_with("cnn, depth: 2", "'nets.py:build'"): (
        "the baseline's level is missing: add `depth: …` to model, one of the factor's levels"
        " @ factors.model.depth (line 6)"
    ),
    setting("metrics: {f1: maximize}"): (
        "the engine measures by a function: `f1: {function: 'm.py:f1', direction: maximize}`; a direction alone is for "
        "what a training function of your own returns @ metrics.f1 (line 8)"
    ),
}


@pytest.mark.parametrize(("text", "message"), ONE_ERROR.items(), ids=range(len(ONE_ERROR)))
def test_a_mistake_is_told_once_in_the_users_words(text: str, message: str) -> None:
    assert errors(text) == [message]


def test_all_mistakes_are_told_at_once_in_the_order_of_lines() -> None:
    text = """\
name: a/b
data: {name: digits, validation: 2}
model: {name: cnn, depth: deep}
name: ok
factors:
  model.depth: [3, 9]
  model.norm: [none, batch]
sedes: 5
metric: {name: accuracy}
questions:
  - effect: model.width
"""

    assert [message.rpartition(" @ ")[2] for message in errors(text)] == [
        "data.validation (line 2)",
        "model.depth (line 3)",
        "name (line 4)",
        "factors.model.depth[1] (line 6)",
        "factors.model.norm (line 7)",
        "sedes (line 8)",
        "metric.name (line 9)",
        "questions[0].effect (line 11)",
    ]


def test_each_missing_key_is_named_with_an_example() -> None:
    assert errors("seeds: 3\n") == [
        "is missing; for example `name: my-study` @ name (line 1)",
        "is missing; for example `data: {name: digits}` @ data (line 1)",
        "is missing; for example `model: {name: cnn, depth: 3}` @ model (line 1)",
        "is missing; for example `factors: {model.depth: [3, 4]}` @ factors (line 1)",
    ]


def test_the_whole_message_counts_the_errors_and_names_the_file() -> None:
    with pytest.raises(StudyFileError) as caught:
        parse(setting("sedes: 5\nalpha: 2"))

    assert str(caught.value) == (
        "f.yaml has 2 errors:\n"
        "  unknown key 'sedes'; did you mean 'seeds'? @ sedes (line 8)\n"
        "  must be a number greater than 0 and at most 0.5, not 2 @ alpha (line 9)"
    )


@pytest.mark.parametrize(
    "content",
    [VALID.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + VALID.encode(), f"%YAML 1.2\n---\n{VALID}".encode()],
)
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(content: bytes) -> None:
    assert parse(content) == parse(VALID)


def test_bytes_that_are_not_utf8_are_refused_with_their_line() -> None:
    assert errors(b"name: x\n\xff\xfe: 3\n") == ["is not UTF-8 text (line 2)"]


def test_a_file_of_1_mib_is_read_and_one_byte_more_is_refused() -> None:
    padding = "#" * 99_999 + "\n"
    content = VALID + padding * 10
    content += "#" * (MAX_BYTES - len(content))

    assert parse(content) == parse(VALID)
    assert errors(content + "#") == ["is larger than 1 MiB, the most that a study file may have"]


def test_50_levels_of_nesting_are_read_and_51_refused() -> None:
    def nested(levels: int) -> str:
        return setting(f"x: {'[' * (levels - 1)}{']' * (levels - 1)}")

    assert errors(nested(MAX_DEPTH))[0].startswith("unknown key 'x'")
    assert errors(nested(MAX_DEPTH + 1)) == ["is nested more than 50 levels deep (line 8)"]


def test_more_variants_than_a_thousand_are_refused_before_they_are_made() -> None:
    hundred = ", ".join(map(str, range(1, 101)))
    text = valid_with(
        "model.depth: [2, 3]",
        f"training.epochs: [{hundred}]\n  model.width: [{hundred}]\n  training.batch_size: [2, 64]",
    )

    assert errors(text) == ["make 20000 variants; a study has at most 1000 @ factors (line 5)"]


def test_more_levels_than_a_hundred_are_refused() -> None:
    many = ", ".join(map(str, range(1, 102)))

    assert errors(valid_with("model.depth: [2, 3]", f"training.epochs: [{many}]")) == [
        "has 101 levels; at most 100 are allowed @ factors.training.epochs (line 6)"
    ]


WORST = {
    "keys": VALID + "".join(f"k{i}: 1\n" for i in range(80_000)),
    "unknown keys just below the limit": VALID + "".join(f"k{i}: 1\n" for i in range(MAX_VALUES // 2 - 20)),
    "factors": VALID.replace("seeds: 2\n", "") + "".join(f"  m{i}: [1, 2]\n" for i in range(2400)),
    "wrong levels": valid_with("[2, 3]", f"[{', '.join(['x'] * 9000)}]"),
    "levels": valid_with("model.depth: [2, 3]", f"training.epochs: [{', '.join(map(str, range(9000)))}]"),
    "wrong dense sizes": valid_with("depth: 2", f"dense: [{', '.join(['0'] * 9000)}]"),
    "questions": setting(f"questions: [{', '.join(['{effect: x}'] * 3000)}]"),
    "a thousand variants": valid_with(
        "model.depth: [2, 3]",
        f"training.epochs: [{', '.join(map(str, range(1, 101)))}]\n  model.width: [1, 2, 3, 4, 5, 6, 7, 8, 9, 32]",
    ),
    "bombs": "a: &a [x]\n" + "".join(f"b{i}: [*a, *a]\n" for i in range(60_000)),
    "tag": "!" * 1_000_000,
    "brackets": "[" * 90_000,
    "line ends": "\n" * 300_000,
    "directives": "%A\n" * 50_000,
}


@pytest.mark.parametrize("text", WORST.values(), ids=WORST)
def test_the_worst_file_is_done_with_in_seconds(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(StudyFileError):
        parse(text)

    assert time.process_time() - start < 10


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_are_never_anything_worse_than_a_study_file_error(content: bytes) -> None:
    with pytest.raises(StudyFileError):
        parse(content)


YAML_CHARACTERS = "[]{}:,-?!&*|>'\"%@`#~ \n\t\\."
YAML_PIECES = st.sampled_from(
    [
        *YAML_CHARACTERS,
        "- ",
        ": ",
        "? ",
        "---",
        "...",
        "<<: ",
        "%YAML 1.1",
        "\\U",
        "\\x",
        "\r\n",
        "\x85",
        "é",
        "&a",
        "*a",
    ]
) | st.sampled_from(["name", "factors", "model.depth", "1e-3", "null", "true", "{name: cnn}", "!!str", "|\n", "\ufeff"])


@settings(max_examples=200, deadline=None)
@given(st.lists(YAML_PIECES, max_size=30).map("".join))
def test_yaml_of_any_shape_is_never_anything_worse_than_a_study_file_error(text: str) -> None:
    with pytest.raises(StudyFileError):
        parse(text)


def positions(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, item in items for inner in positions(item, (*path, key)))]


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "effect", "on", "looks", "first", "last", "tune", "model.depth", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)
POSITIONS = positions(EVERYTHING)[1:]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(POSITIONS), VALUES | st.just(...)), min_size=1, max_size=3))
def test_a_changed_study_is_a_study_or_a_mistake_in_the_users_words(changes: list[tuple[Any, Any]]) -> None:
    document = copy.deepcopy(EVERYTHING)
    for path, value in changes:
        put(document, path, value)
    try:
        check(document, source="f", lines={})
    except StudyFileError as error:
        for problem in error.problems:
            assert not any(word in problem.message for word in JARGON if word not in json.dumps(document)), problem
            assert "\n" not in str(problem)
        locations = [problem.path for problem in error.problems]
        assert len(locations) == len(set(locations))


def put(document: Any, path: tuple[Any, ...], value: Any) -> None:
    """Set, or with `...` take away, what a path leads to; nothing where an earlier change took it away."""
    try:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]]
    except (KeyError, IndexError, TypeError):
        return
    if value is ...:
        del document[path[-1]]
    elif not isinstance(document, str):
        document[path[-1]] = value


@settings(max_examples=30, deadline=None)
@given(st.permutations(list(EVERYTHING)), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(keys: list[str], random: Any) -> None:
    shuffled = {key: EVERYTHING[key] for key in keys}
    for section in ("data", "model", "training", "metric"):
        items = list(EVERYTHING[section].items())
        random.shuffle(items)
        shuffled[section] = dict(items)

    assert parse(json.dumps(shuffled)) == parse(json.dumps(EVERYTHING))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.from_regex(r"[a-z]+", fullmatch=True), st.integers(0, 99)), min_size=1, max_size=5))
def test_a_path_is_read_as_it_is_written(parts: list[str | int]) -> None:
    location = ("top", *parts)

    assert location_of(path_of(location)) == location


def test_the_path_of_a_factor_is_one_key() -> None:
    assert location_of("factors.model.depth[1]") == ("factors", "model.depth", 1)


def test_a_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(AblationError, match=r"cannot read the study file .*: No such file or directory"):
        load_study(tmp_path / "none.yaml")
    with pytest.raises(AblationError, match=r"cannot read the study file .*: Is a directory"):
        load_study(tmp_path)


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = make_plan(factors={"model.depth": (2, 3), "training.learning_rate": (0.1, 1e-5)}, deviations=("so",))

    assert plan_from_json(plan_to_json(plan)) == plan


def planned(looks: Sequence[int], *, locked: Sequence[int], seeds: int) -> Plan:
    """Return a plan with looks as its study has them now, and as they were locked with so many seeds."""
    made = make_plan(seeds=max(looks, default=3))
    study = {**made.study, "seeds": {"looks": list(looks)}}
    return replace(made, study=study, locked=replace(made.locked, looks=tuple(locked), seeds=seeds))


def test_looks_and_the_locked_family_are_read_as_they_were_written() -> None:
    plan = replace(planned((2, 3), locked=(2, 3), seeds=3), family=("depth 3 − 2", "batch − none"))

    read = plan_from_json(plan_to_json(plan))

    assert plan == read
    assert (2, 3) == read.looks == read.locked.schedule
    assert plan_to_json(plan) == plan_to_json(read)


def test_a_plan_without_looks_and_family_says_nothing_of_them() -> None:
    document = json.loads(plan_to_json(make_plan(seeds=3)))

    assert "family" not in document
    assert "looks" not in document["locked"]
    assert 3 == document["study"]["seeds"] == document["locked"]["seeds"]


@pytest.mark.parametrize(
    ("looks", "locked", "seeds"),
    [
        ((3, 2), (), 3),
        ((2, 2), (), 2),
        ((1, 3), (), 3),
        ((3,), (), 3),
        ((), (), 3),
        (range(2, 13), (), 12),
        ((2, 3), (3, 2), 2),
        ((2, 3), (2, 2, 3), 3),
        ((2, 3), (1, 3), 3),
        ((2, 3), (3,), 3),
        ((2, 3), range(2, 13), 12),
        ((2, 3), (2, 3), 5),
        ((2, 3), (2, 10_001), 10_001),
    ],
)
def test_looks_that_no_study_has_are_no_plans(looks: Sequence[int], locked: Sequence[int], seeds: int) -> None:
    text = plan_to_json(planned(looks, locked=locked, seeds=seeds))

    with pytest.raises(ValueError, match=r"^not a plan: its (locked )?looks.* are not those of a study of \d+ seeds$"):
        plan_from_json(text)


def test_looks_beyond_the_runs_of_a_plan_are_refused() -> None:
    plan = planned((2, 3), locked=(2, 3), seeds=3)
    shorter = replace(plan, runs=tuple(run for run in plan.runs if run.seed < 2))

    with pytest.raises(ValueError, match="its looks, 2, 3, are not those of a study of 2 seeds"):
        plan_from_json(plan_to_json(shorter))


@pytest.mark.parametrize(
    "seeds", ["3", 3.5, None, [2, "3"], {"looks": [2.0, 3]}, {"looks": ["2"]}, {"first": 2, "last": 3}]
)
def test_seeds_of_another_form_are_no_plans(seeds: Any) -> None:
    made = make_plan(seeds=3)

    with pytest.raises(ValueError, match=r"^not a plan: .* @ seeds"):
        plan_from_json(plan_to_json(replace(made, study={**made.study, "seeds": seeds})))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "study": 3}'])
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"plan|Expecting"):
        plan_from_json(text)

"""Data sets of every task: forms of targets, what is refused and in which words, digests, splits and scale."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablation.code import CodeFolders
from ablation.datasets import Dataset, describe, make_split, open_dataset, prepare
from ablation.datasets.arrays import LEAST_CLASSES, write_arrays, write_facts
from ablation.datasets.own_arrays import KEPT, read_arrays
from ablation.datasets.splits import MEMBERS
from ablation.datasets.targets import FORMS
from ablation.errors import DataInvalid, StudyFileError
from ablation.preview import TARGETS_TEXTS
from ablation.records import IGNORED, DataSettings, DataShape, TaskName
from ablation.study import load_study
from ablation.worker.data import first_batch, run_data, scale_of

COUNT = 12
FLOATS = np.linspace(0, 1, COUNT * 4).reshape(COUNT, 4)
IDS = np.arange(COUNT * 5).reshape(COUNT, 5) % 7
IMAGES = np.zeros((COUNT, 4, 6, 3), dtype=np.uint8)
PLANES = np.zeros((COUNT, 2, 4, 6), dtype=np.float32)
NUMBERS = np.linspace(-3, 5, COUNT)
CLASSES = np.arange(COUNT) % 3
LABELS = np.stack([np.arange(COUNT) % 2, np.arange(COUNT) % 3 == 0], axis=1)
TOKENS = (IDS + 1) % 7
MASKS = np.arange(COUNT * 24).reshape(COUNT, 4, 6) % 3
GIVEN: dict[TaskName, tuple[Any, Any]] = {
    "classification": (FLOATS, CLASSES),
    "regression": (FLOATS, NUMBERS),
    "multilabel": (FLOATS, LABELS),
    "tokens": (IDS, TOKENS),
    "segmentation": (IMAGES, MASKS),
}


def returned(inputs: Any, targets: Any, **changes: Any) -> dict[str, Any]:
    return {"train": (inputs, targets), "test": (inputs, targets), **changes}


def made(folder: Path, task: TaskName, ignore_index: int = IGNORED, **given: Any) -> Dataset:
    """Write the data set that a function returned."""
    inputs, targets = GIVEN[task]
    loaded = returned(given.pop("inputs", inputs), given.pop("targets", targets), **given)
    arrays, classes = read_arrays(loaded, source="made", task=task, ignore_index=ignore_index)
    folder.mkdir(exist_ok=True)
    write_arrays(folder, arrays)
    write_facts(folder, name="made", classes=classes, source="made", task=task, ignore_index=ignore_index)
    return open_dataset(folder)


def refusal(task: TaskName, inputs: Any, targets: Any, ignore_index: int = IGNORED, **changes: Any) -> str:
    with pytest.raises(DataInvalid) as caught:
        read_arrays(returned(inputs, targets, **changes), source="d.py:load", task=task, ignore_index=ignore_index)
    return str(caught.value)


@pytest.mark.parametrize("table", [FORMS, KEPT, LEAST_CLASSES, MEMBERS, TARGETS_TEXTS, GIVEN])
def test_every_table_has_a_row_for_each_task(table: Any) -> None:
    assert set(get_args(TaskName)) == set(table)


class TestForms:
    @pytest.mark.parametrize(
        ("task", "inputs", "targets", "shape"),
        [
            ("regression", FLOATS, NUMBERS, DataShape(channels=0, height=0, width=0, classes=(), features=(4,))),
            (
                "regression",
                IMAGES,
                np.stack([CLASSES, NUMBERS], 1),
                DataShape(channels=3, height=4, width=6, classes=(), target_shape=(2,)),
            ),
            (
                "multilabel",
                FLOATS,
                LABELS.astype(float),
                DataShape(channels=0, height=0, width=0, classes=("0", "1"), features=(4,), target_shape=(2,)),
            ),
            (
                "tokens",
                IDS,
                TOKENS,
                DataShape(
                    channels=0,
                    height=0,
                    width=0,
                    classes=tuple("0123456"),
                    features=(5,),
                    target_shape=(5,),
                    vocabulary=7,
                ),
            ),
            (
                "segmentation",
                PLANES,
                MASKS,
                DataShape(channels=0, height=0, width=0, classes=tuple("012"), features=(2, 4, 6), target_shape=(4, 6)),
            ),
            (
                "classification",
                IDS.astype(np.uint8),
                CLASSES,
                DataShape(channels=0, height=0, width=0, classes=tuple("012"), features=(5,), vocabulary=7),
            ),
        ],
    )
    def test_a_data_set_of_a_task_has_its_shape_and_its_targets(
        self, tmp_path: Path, task: TaskName, inputs: Any, targets: Any, shape: DataShape
    ) -> None:
        dataset = made(tmp_path, task, inputs=inputs, targets=targets)

        assert dataclasses.replace(shape, task=task) == dataset.facts.shape
        assert FORMS[task].dtype == dataset.train_labels.dtype
        assert np.array_equal(np.asarray(targets).astype(FORMS[task].dtype), dataset.test_labels)
        assert dataset.facts.shape.vocabulary == 0 or np.int32 == dataset.train_images.dtype

    def test_whole_numbers_and_columns_are_targets_of_a_regression(self, tmp_path: Path) -> None:
        assert CLASSES.tolist() == made(tmp_path, "regression", targets=CLASSES).train_labels.tolist()
        assert (1,) == made(tmp_path, "regression", targets=NUMBERS[:, None]).facts.shape.target_shape

    def test_classes_name_labels(self, tmp_path: Path) -> None:
        assert ("cat", "dog") == made(tmp_path, "multilabel", classes=["cat", "dog"]).facts.shape.classes

    def test_the_ignore_index_is_no_class(self, tmp_path: Path) -> None:
        masks = np.where(MASKS == 2, 255, MASKS).astype(np.uint8)

        dataset = made(tmp_path, "segmentation", 255, targets=masks)

        assert (("0", "1"), 255) == (dataset.facts.shape.classes, dataset.facts.shape.ignore_index)
        assert np.array_equal(masks, dataset.train_labels)
        assert 0.5 == dataset.facts.largest_class_share

    @pytest.mark.parametrize(
        ("task", "share"),
        [("classification", 1 / 3), ("regression", 0.0), ("multilabel", 0.0), ("segmentation", 1 / 3)],
    )
    def test_the_largest_class_is_that_of_the_targets_that_count(
        self, tmp_path: Path, task: TaskName, share: float
    ) -> None:
        assert share == made(tmp_path, task).facts.largest_class_share


class TestRefusals:
    @pytest.mark.parametrize(
        ("task", "targets", "expected"),
        [
            ("classification", NUMBERS, "are float64 (12,); classification takes integers 0..K-1 or class names, one"),
            ("classification", NUMBERS, "for these set `data.task: regression`"),
            ("classification", LABELS, "for these set `data.task: multilabel`"),
            ("classification", TOKENS, "for these set `data.task: tokens`"),
            ("classification", MASKS, "for these set `data.task: segmentation`"),
            ("tokens", CLASSES, "tokens takes integers 0..K-1 for each position of a sequence, (N, T), or the ignore"),
            ("tokens", CLASSES, "for these set `data.task: classification`"),
            ("regression", MASKS, "regression takes numbers, (N,) or (N, K); for these set `data.task: segmentation`"),
            ("multilabel", CLASSES, "multilabel takes 0 or 1 for each label, (N, K); for these set"),
            ("regression", NUMBERS / np.where(CLASSES == 0, np.nan, 1), "targets have 4 values that are NaN or inf"),
            ("regression", NUMBERS * 1e300, "values that are NaN or infinite as float32"),
            ("regression", NUMBERS * 0 + 5, "the target is 5 in all of train: there is nothing to learn"),
            (
                "regression",
                np.stack([NUMBERS, NUMBERS * 0], 1),
                "target 1 of 0..1 is constant in all of train: there is nothing to learn",
            ),
            ("regression", ["a"] * COUNT, "train targets are (12,) of str, not numbers"),
        ],
    )
    def test_targets_of_the_wrong_form_name_the_task_that_takes_them(
        self, task: TaskName, targets: Any, expected: str
    ) -> None:
        assert expected in refusal(task, FLOATS, targets)

    @pytest.mark.parametrize(
        ("task", "inputs", "targets", "expected"),
        [
            ("tokens", IMAGES, TOKENS, "train inputs are images; tokens takes sequences: whole numbers (N, T), or"),
            ("tokens", IDS - 1, TOKENS, "train inputs are whole numbers -1..5; ids are 0.."),
            ("tokens", IDS[:, :3], TOKENS, "inputs are sequences of 3, targets of 5; give one for each position"),
            ("tokens", IDS, TOKENS - 1, "targets are -1..5, not within 0..5; where -1 counts for nothing, set"),
            ("segmentation", IDS, MASKS, "train inputs are int32 (12, 5); segmentation takes images"),
            ("segmentation", IMAGES[:, :2], MASKS, "inputs have pixels of (2, 6), targets of (4, 6)"),
            (
                "segmentation",
                IMAGES,
                np.where(MASKS == 2, 255, MASKS),
                "targets go up to 255, and 2..254 do not occur; where 255 counts for nothing, set "
                "`data.ignore_index: 255`",
            ),
            ("segmentation", IMAGES, MASKS * 0 - 100, "all train targets are the ignore index, -100"),
        ],
    )
    def test_inputs_and_positions_that_do_not_fit_are_said(
        self, task: TaskName, inputs: Any, targets: Any, expected: str
    ) -> None:
        assert expected in refusal(task, inputs, targets, classes=None)

    def test_a_regression_has_no_classes(self) -> None:
        assert "leave 'classes' out" in refusal("regression", FLOATS, NUMBERS, classes=["a", "b"])

    def test_so_many_names_as_labels(self) -> None:
        assert "its classes name 3 labels" in refusal("multilabel", FLOATS, LABELS, classes=["a", "b", "c"])

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            ("{name: digits, task: regression}", "digits has classes, so its task is classification; leave task out"),
            ("{name: 'd.py:load', task: regresion}", "has 1 error:"),
            ("{name: 'd.py:load', task: regression, ignore_index: 3}", "ignore_index is a setting of tokens and"),
            ("{name: 'd.py:load', target_scaling: none}", "target_scaling is a setting of regression; the task of"),
        ],
    )
    def test_a_study_file_names_what_a_task_does_not_take(self, tmp_path: Path, data: str, expected: str) -> None:
        (tmp_path / "d.py").write_text("def load():\n    return {}\n\n\ndef build(width):\n    return None\n")
        (tmp_path / "study.yaml").write_text(
            f"name: refused\ndata: {data}\nmodel: {{name: 'd.py:build', width: 1}}\n"
            f"{'training: {loss: mse}' * ('regres' in data)}\n"
            "factors:\n  model.width: [1, 2]\nseeds: 2\n"
        )

        with pytest.raises(StudyFileError) as caught:
            load_study(tmp_path / "study.yaml")

        assert expected in str(caught.value)


class TestFacts:
    def test_the_digest_of_a_known_classification_stays_what_it_was(self, tmp_path: Path) -> None:
        assert "3e3e994c203dfe2e" == made(tmp_path, "classification").facts.digest[:16]

    def test_tasks_of_the_same_numbers_have_digests_of_their_own(self, tmp_path: Path) -> None:
        masks = np.arange(COUNT * 5).reshape(COUNT, 5) // 3 % 2
        digests = {
            made(tmp_path / task, task, inputs=IDS, targets=masks).facts.digest  # type: ignore[arg-type]
            for task in ("multilabel", "tokens", "regression")
        }
        other = made(tmp_path / "other", "tokens", 9, inputs=IDS, targets=masks).facts.digest

        assert 4 == len({*digests, other})

    @pytest.mark.parametrize(
        ("task", "inputs", "targets"),
        [
            ("classification", FLOATS, "np.array([0, 1] * 5 + [0, 2])"),
            ("multilabel", FLOATS, "np.stack([np.arange(12) % 2, np.zeros(12)], 1)"),
        ],
    )
    def test_a_plan_and_what_is_prepared_say_the_same(
        self, tmp_path: Path, task: TaskName, inputs: Any, targets: str
    ) -> None:
        (tmp_path / "d.py").write_text(
            "import numpy as np\n\n\ndef load():\n"
            f"    targets = {targets}\n    inputs = np.ones((12, 3)) * np.arange(12)[:, None]\n"
            "    return {'train': (inputs, targets), 'test': (inputs[:10], targets[:10])}\n"
        )
        chosen = DataSettings(name="d.py:load", task=task)
        code, cache = CodeFolders(folders=(tmp_path,)), tmp_path / "cache"
        expected = {
            "classification": ("class '2' has 1 example in train, which is never held out",),
            "multilabel": ("label '1' has no positives in train",),
        }
        last = {
            "classification": "class '2' has no examples in test",
            "multilabel": "label '1' has no positives in test",
        }

        before = describe(chosen, cache=cache, code=code)
        facts = prepare(chosen, cache=cache, code=code).facts
        again = prepare(chosen, cache=cache, code=code).facts

        assert (*expected[task], last[task]) == before.notes == facts.notes == again.notes
        assert (before.shape, facts) == (facts.shape, again)

    def test_a_constant_target_of_test_is_said(self) -> None:
        notes = FORMS["regression"].notes("test", np.ones(4, dtype=np.float32), (), IGNORED)

        assert ["the target is 1 in all of test: R² is undefined there"] == notes

    def test_many_absent_classes_are_counted(self) -> None:
        classes = tuple("abcdef")

        notes = FORMS["tokens"].notes("train", np.zeros((2, 3), dtype=np.int32), classes, IGNORED)

        assert ["classes 'b', 'c', 'd' and 2 more have no examples in train"] == notes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Callable[[TaskName], Dataset]:
    root = tmp_path_factory.mktemp("tasks")
    return lambda task: made(root / task, task)


class TestSplits:
    @given(
        task=st.sampled_from([task for task in GIVEN if task != "classification"]),
        fraction=st.floats(0.1, 0.5),
        limit=st.none() | st.integers(6, COUNT),
        seed=st.integers(0, 9),
    )
    @settings(max_examples=40, deadline=None)
    def test_random_parts_are_disjoint_and_together_all_that_the_limit_left(
        self,
        dataset: Callable[[TaskName], Dataset],
        task: TaskName,
        fraction: float,
        limit: int | None,
        seed: int,
    ) -> None:
        prepared, chosen = dataset(task), DataSettings(name="made", limit=limit, validation=fraction)

        split = make_split(prepared, chosen, study_seed=1, seed=seed)
        whole = make_split(prepared, dataclasses.replace(chosen, validation="none"), study_seed=1, seed=seed)

        assert split.validation is not None
        assert whole.train.tolist() == sorted([*split.train.tolist(), *split.validation.tolist()])
        assert (limit or COUNT) == len(set(whole.train.tolist()))
        assert round(fraction * (limit or COUNT)) == len(split.validation)

    def test_a_part_whose_targets_are_all_ignored_is_refused(self, tmp_path: Path) -> None:
        tokens = np.full(TOKENS.shape, IGNORED)
        tokens[0] = [0, 1, 0, 1, 0]
        prepared = made(tmp_path, "tokens", targets=tokens)

        with pytest.raises(DataInvalid, match=r"all targets of 6 examples drawn are the ignore index, -100"):
            make_split(prepared, DataSettings(name="made", validation=0.5), study_seed=0, seed=0)


class TestScale:
    @pytest.mark.parametrize("targets", [NUMBERS, np.stack([NUMBERS, NUMBERS**2 + 1e6], 1)])
    def test_it_is_that_of_the_training_split_in_double_precision(self, tmp_path: Path, targets: Any) -> None:
        dataset = made(tmp_path, "regression", targets=targets)
        chosen = DataSettings(name="made", task="regression", validation=0.25)
        split = make_split(dataset, chosen, study_seed=0, seed=0)

        data, _ = run_data(
            dataset.folder,
            chosen,
            study_seed=0,
            seed=0,
            device=torch.device("cpu"),
            layout=torch.contiguous_format,
        )

        assert data.scale is not None
        trained = np.asarray(dataset.train_labels)[split.train].astype(np.float64)
        for values, expected in zip(data.scale, (trained.mean(0), trained.std(0)), strict=True):
            assert (torch.float32, targets.shape[1:]) == (values.dtype, tuple(values.shape))
            assert np.array_equal(expected.astype(np.float32), values.numpy())

    def test_there_is_none_where_targets_stay_as_they_are(self, tmp_path: Path) -> None:
        dataset, layout = made(tmp_path, "regression"), torch.contiguous_format
        chosen = DataSettings(name="made", task="regression", target_scaling="none")

        assert first_batch(dataset, chosen, 4, layout=layout).scale is None
        assert first_batch(dataset, dataclasses.replace(chosen, target_scaling="standardize"), 4, layout=layout).scale

    def test_a_constant_target_has_deviation_1(self) -> None:
        mean, deviation = scale_of(torch.full((5,), 0.1))

        assert (pytest.approx(0.1), 1.0) == (mean.item(), deviation.item())

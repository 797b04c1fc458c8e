"""A user's data set is read into arrays, checked like any other, and read again when it changes."""

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bench import Bench

from ablation.code import CodeFolders
from ablation.datasets import Dataset, describe, make_split, open_dataset, prepare
from ablation.datasets.own_arrays import read_arrays
from ablation.errors import CodeInvalid, DataInvalid
from ablation.records import (
    DataOutline,
    DataSettings,
    DataShape,
    EngineTraining,
    ModelSettings,
    Outcome,
    PlannedRun,
    RunResult,
    Settings,
)
from ablation.storage.run_folder import RunFolder
from ablation.study import load_study
from ablation.worker import Job, estimate, estimate_seconds, run_jobs, setup

SETTINGS = DataSettings(name="data.py:load")
MOONS = """
import numpy as np

def load(count=6, scale=1.0):
    features = np.linspace(0, scale, count * 3).reshape(count, 3)
    labels = np.arange(count) % 2
    return {"train": (features, labels), "test": (features[:4], labels[:4])}
"""
FEATURES = np.linspace(0, 1, 24).reshape(6, 4)
IMAGES = np.arange(6 * 5 * 7 * 3, dtype=np.uint8).reshape(6, 5, 7, 3)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def settings_of(**training: Any) -> Settings:
    chosen = replace(TRAINING, **training)
    return Settings(data=SETTINGS, model=ModelSettings(name="cnn"), training=chosen, study_seed=0)


class Hostile:
    """Neither an array nor willing to become one."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise MemoryError("no")

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def ready(project: Path, tmp_path: Path) -> Callable[..., Dataset]:
    """Prepare the data set that a text's `load` returns."""

    def make(text: str = MOONS, **settings: object) -> Dataset:
        (project / "data.py").write_text(text)
        return prepare(
            DataSettings.from_plain({**SETTINGS.plain(), **settings}),
            cache=tmp_path / "cache",
            code=CodeFolders(folders=(project,)),
        )

    return make


def returned(inputs: object = FEATURES, labels: object = LABELS, **changes: object) -> dict[str, object]:
    return {"train": (inputs, labels), "test": (inputs, labels), **changes}


def said(loaded: object) -> str:
    with pytest.raises(DataInvalid) as caught:
        read_arrays(loaded, source="data.py:load")
    first, *lines = str(caught.value).splitlines()
    assert first == "the data in data.py:load cannot be used:"
    return "\n".join(line.strip() for line in lines)


class TestArrays:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.longdouble])
    @pytest.mark.parametrize("shape", [(24,), (3, 8), (2, 3, 4), (1, 2, 3, 4)])
    def test_floats_of_any_shape_and_width_are_features(self, dtype: Any, shape: tuple[int, ...]) -> None:
        inputs = np.linspace(0, 1, 144).reshape(6, *shape).astype(dtype)

        arrays, classes = read_arrays(returned(inputs), source="made")

        assert (np.dtype("<f4"), (6, *shape)) == (arrays["train_images"].dtype, arrays["train_images"].shape)
        assert np.array_equal(inputs.astype(np.float32), arrays["train_images"])
        assert ("0", "1", "2") == classes

    def test_gray_images_get_a_channel(self) -> None:
        arrays, _ = read_arrays(returned(IMAGES[..., 0]), source="made")

        assert np.array_equal(IMAGES[..., :1], arrays["test_images"])

    @pytest.mark.parametrize(
        "inputs",
        [
            torch.from_numpy(FEATURES),
            torch.from_numpy(FEATURES).requires_grad_(),
            torch.from_numpy(FEATURES).bfloat16().double(),
            FEATURES.tolist(),
            np.asfortranarray(FEATURES),
            FEATURES[::-1],
            list(torch.from_numpy(FEATURES)),
        ],
        ids=["tensor", "gradient", "bfloat16", "lists", "columns first", "reversed", "tensors"],
    )
    def test_whatever_numpy_takes_is_taken(self, inputs: Any) -> None:
        arrays, _ = read_arrays(returned(inputs), source="made")

        assert np.float32 == arrays["train_images"].dtype
        assert arrays["train_images"].flags.c_contiguous

    def test_a_tensor_of_a_type_that_numpy_lacks_is_taken(self) -> None:
        arrays, _ = read_arrays(returned(torch.from_numpy(FEATURES).bfloat16()), source="made")

        assert np.allclose(FEATURES, arrays["train_images"], atol=0.01)

    @pytest.mark.parametrize(
        "labels", [["b", "a", "c"] * 2, np.array(["b", "a", "c"] * 2), np.array(["b", "a", "c"] * 2, dtype=object)]
    )
    def test_class_names_are_sorted_unless_they_are_given(self, labels: Any) -> None:
        ordered, classes = read_arrays(returned(labels=labels), source="made")
        given, names = read_arrays(returned(labels=labels, classes=["c", "b", "a"]), source="made")

        assert (("a", "b", "c"), [1, 0, 2]) == (classes, ordered["train_labels"][:3].tolist())
        assert (("c", "b", "a"), [1, 2, 0]) == (names, given["train_labels"][:3].tolist())

    def test_classes_name_numbers(self) -> None:
        _, classes = read_arrays(returned(classes=("cat", "dog", 3)), source="made")

        assert ("cat", "dog", "3") == classes

    @pytest.mark.parametrize(
        ("loaded", "expected"),
        [
            (None, "it returned NoneType; return {'train': (inputs, labels), 'test': (inputs, labels)}"),
            ([FEATURES, LABELS], "it returned list; return {'train'"),
            (
                {"train": (FEATURES, LABELS)},
                "it returned no test split; return one, or: to draw a test split from train",
            ),
            ({}, "it returned the keys (none); return"),
            (returned(val=(FEATURES, LABELS)), "it returned the keys train, test, val; return"),
            (returned(test=FEATURES), "its test is ndarray, not a pair (inputs, labels)"),
            (returned(test=(FEATURES, LABELS, 1)), "its test is tuple, not a pair"),
            (returned([[1.0, 2.0], [1.0]] * 3), "train inputs cannot be made an array: "),
            (returned(Hostile()), "train inputs cannot be made an array: no"),
            (returned([Hostile()] * 6), "train inputs cannot be made an array: no"),
            (returned(None), "train inputs are () of NoneType, not numbers"),
            (
                returned(np.array([{}, 1, "a"] * 2, dtype=object)),
                "train inputs are (6,) of dict, int, str, not numbers",
            ),
            (returned([[10**30, 1]] * 6), "train inputs are (6, 2) of int, not numbers"),
            (returned("data.npz"), "train inputs are () of str, not numbers"),
            (returned(IMAGES.astype(np.int64)), "train inputs are int64 (6, 5, 7, 3); give uint8 for images"),
            (returned(FEATURES > 0.5), "train inputs are bool (6, 4); give uint8"),
            (returned(FEATURES + 1j), "train inputs are complex128"),
            (returned(FEATURES[:, 0]), "train inputs are float64 (6,), not (N, features…)"),
            (returned(3.0), "train inputs are float64 (), not (N, features…)"),
            (returned(FEATURES[:, :0]), "train inputs are float64 (6, 0), not (N, features…)"),
            (
                returned(IMAGES.transpose(0, 3, 1, 2)),
                "(6, 3, 5, 7); images are (N, height, width) or (N, height, width, 1 or 3); move the channels last",
            ),
            (returned(IMAGES[:, :, :, :2]), "train inputs are uint8 (6, 5, 7, 2); images are"),
            (returned(IMAGES[:, :0]), "train inputs are uint8 (6, 0, 7, 3)"),
            (returned(test=([], [])), "test inputs are empty\ntest labels are empty"),
            (returned(test=(FEATURES[:0], LABELS[:0])), "test inputs are empty"),
            (returned(test=(FEATURES[:, :3], LABELS)), "training inputs are (4,), test inputs (3,)"),
            (
                returned(IMAGES, test=(IMAGES[:, :4], LABELS)),
                "training images are (5, 7, 3), test images (4, 7, 3) (height",
            ),
            (returned(test=(IMAGES, LABELS)), "training inputs are float32, test inputs uint8"),
            (returned(test=(FEATURES, LABELS[:5])), "test labels are int64 (5,), not int64 (6,)"),
            (
                returned(labels=LABELS.astype(float)),
                "train labels are float64 (6,); classification takes integers 0..K-1 or class names, one per input, "
                "(N,) (make them integers, `astype(int)`, where they are numbers of classes); for these set "
                "`data.task: regression`",
            ),
            (
                returned(labels=LABELS + 0.5),
                "train labels are float64 (6,); classification takes integers 0..K-1 or class names, one per input, "
                "(N,); for these set `data.task: regression`",
            ),
            (returned(labels=LABELS > 0), "train labels are bool (6,); classification takes integers 0..K-1"),
            (
                returned(labels=np.eye(3, dtype=int)[LABELS]),
                "train labels are int64 (6, 3); classification takes integers 0..K-1 or class names, one per input, "
                "(N,); for these set `data.task: multilabel`, or give the place of each row's 1, `argmax(1)`",
            ),
            (returned(labels=[b"a", b"b", b"c"] * 2), "train labels are |S1 (6,); classification takes"),
            (
                returned(labels=["a", None, 1] * 2),
                "train labels are (6,) of NoneType, int, str, not numbers or class names",
            ),
            (returned(labels=LABELS - 1), "train labels are -1..1, not within 0..1"),
            (returned(labels=LABELS * 5), "its labels go up to 10, with 6 training inputs; number the classes 0..K-1"),
            (returned(labels=[0, 1, 2**62] * 2), f"its labels go up to {2**62}"),
            (returned(labels=np.array([0, 1, 2**64 - 1] * 2, dtype=np.uint64)), f"its labels go up to {2**64 - 1}"),
            (returned(labels=[0, 1, 2**80] * 2), "train labels are (6,) of int, not numbers or class names"),
            (
                returned(labels=np.uint64(2**63) + LABELS.astype("u8"), classes=list("abc")),
                "train labels are 9223372036854775808..9223372036854775810, not within 0..2",
            ),
            (returned(labels=LABELS * 0), "it has 1 classes; a study needs two at least"),
            (returned(labels=["a"] * 6, test=(FEATURES, LABELS)), "the labels of one split are numbers and those of"),
            (
                returned(labels=list("abcabc"), classes=["a", "b"]),
                "its labels have 'c', which is not among its classes: a, b",
            ),
            (returned(classes=["a", "a", "b"]), "its classes have 'a' twice"),
            (returned(classes="abc"), "its classes are str, not a list of names"),
            (returned(classes=[None, 1.5, "c"]), "its classes are list, not a list of names"),
            (
                returned(FEATURES / np.where(FEATURES > 0.9, np.nan, 1)),
                "train features have 3 values that are NaN or infinite",
            ),
            (returned(FEATURES * 1e300), "values that are NaN or infinite as float32\ntest features have"),
        ],
    )
    def test_what_cannot_be_used_is_said_in_words(self, loaded: object, expected: str) -> None:
        assert expected in said(loaded)

    def test_all_that_is_wrong_with_inputs_and_labels_is_said_at_once(self) -> None:
        assert 4 == len(said(returned(None, 1.5)).splitlines())


class TestPreparing:
    def test_features_are_kept_as_they_are_with_their_shape(self, ready: Callable[..., Dataset]) -> None:
        dataset = ready()

        shape = DataShape(channels=0, height=0, width=0, classes=("0", "1"), features=(3,))
        assert (shape, 6, 4, 0.5) == (
            dataset.facts.shape,
            dataset.facts.train_images,
            dataset.facts.test_images,
            dataset.facts.largest_class_share,
        )
        assert np.array_equal(np.linspace(0, 1, 18, dtype=np.float32).reshape(6, 3), dataset.train_images)
        assert "data.load" == dataset.facts.name
        assert dataset.folder.name.startswith("data.load-")

    def test_it_is_opened_again_as_it_was(self, ready: Callable[..., Dataset]) -> None:
        dataset = ready()

        assert dataset == open_dataset(dataset.folder) == pickle.loads(pickle.dumps(dataset))

    def test_facts_of_an_earlier_version_are_read(self, ready: Callable[..., Dataset]) -> None:
        text = MOONS.replace("features = ", "features = np.ones((count, 2, 2), dtype=np.uint8); _ = ")
        dataset = ready(text)
        facts = json.loads((dataset.folder / "facts.json").read_text())
        del facts["shape"]["features"]
        (dataset.folder / "facts.json").write_text(json.dumps(facts))

        assert dataset == open_dataset(dataset.folder)

    def test_features_and_images_of_the_same_numbers_are_different_data(self, ready: Callable[..., Dataset]) -> None:
        text = MOONS.replace("features = ", "features = np.ones((count, 2, 2, 1), dtype=np.{}); _ = ")

        assert ready(text.replace("{}", "uint8")).facts.digest != ready(text.replace("{}", "float32")).facts.digest

    def test_arguments_of_the_data_section_are_given(self, ready: Callable[..., Dataset]) -> None:
        assert 8 == ready(count=8).facts.train_images

    def test_the_root_is_given_as_it_is_written(self, ready: Callable[..., Dataset]) -> None:
        text = MOONS.replace("count=6", "root, count=6") + "    assert root == 'hf://somewhere'\n"
        text = text.replace("    return", "    assert root == 'hf://somewhere'\n    return")

        assert 6 == ready(text, root="hf://somewhere").facts.train_images

    @pytest.mark.parametrize(
        ("text", "settings", "expected"),
        [
            (
                MOONS,
                {"cuont": 3},
                "load takes no argument 'cuont'; it takes count, scale; did you mean 'count'? @ data.cuont",
            ),
            (MOONS, {"root": "here"}, "load takes no argument 'root'; it takes count, scale"),
            (
                MOONS.replace("count=6", "root, count=6"),
                {},
                "load needs an argument 'root'; add it to the section @ data.root",
            ),
            (
                "def load():\n    raise OSError('gone')",
                {},
                "data.py:load raised OSError when it was called @ data.name",
            ),
            ("def load():\n    raise SystemExit", {}, "data.py:load raised SystemExit when it was called"),
            ("load = 3", {}, "data.py:load is int, which cannot be called @ data.name"),
            ("import nothing_there", {}, "data.py:load imports 'nothing_there'"),
        ],
    )
    def test_a_function_that_cannot_be_called_is_an_error_of_the_code(
        self, ready: Callable[..., Dataset], text: str, settings: dict[str, object], expected: str
    ) -> None:
        with pytest.raises(CodeInvalid) as caught:
            ready(text, **settings)

        assert expected in str(caught.value)

    def test_the_line_that_raised_is_shown(self, ready: Callable[..., Dataset]) -> None:
        with pytest.raises(CodeInvalid) as caught:
            ready("def load():\n    return open('/nowhere')")

        assert "line 2, in load" in str(caught.value)
        assert "own.py" not in str(caught.value)

    def test_what_it_prints_stays_off_standard_output(
        self, ready: Callable[..., Dataset], capsys: pytest.CaptureFixture[str]
    ) -> None:
        ready(MOONS.replace("    return", "    print('loading')\n    return"))

        assert "" == capsys.readouterr().out

    def test_it_is_called_once_for_the_same_code_arguments_and_files(
        self, ready: Callable[..., Dataset], tmp_path: Path
    ) -> None:
        root = tmp_path / "files"
        (root / "deep" / "down" / "here").mkdir(parents=True)
        file = root / "deep" / "down" / "here" / "numbers.txt"
        file.write_text("1")
        text = MOONS.replace("count=6", "root, count=6").replace(
            "    return", "    with open(root + '/../calls', 'a') as calls: calls.write('x')\n    return"
        )

        def calls() -> int:
            return len((tmp_path / "calls").read_text())

        counts = []
        for change in (
            lambda: ready(text, root=str(root)),
            lambda: ready(text, root=str(root)),
            lambda: ready(text, root=str(root), count=8),
            lambda: ready(text + "#", root=str(root)),
            lambda: (os.utime(file, (1, 1)), ready(text, root=str(root))),
        ):
            change()
            counts.append(calls())

        assert [1, 1, 2, 3, 4] == counts

    def test_a_plan_sees_what_prepares_and_writes_nothing(
        self, ready: Callable[..., Dataset], project: Path, tmp_path: Path
    ) -> None:
        (project / "data.py").write_text(MOONS)
        code = CodeFolders(folders=(project,))
        before = describe(SETTINGS, cache=tmp_path / "cache", code=code)
        was_written = (tmp_path / "cache").exists()
        facts = ready().facts
        after = describe(SETTINGS, cache=tmp_path / "cache", code=code)

        assert not was_written
        assert before == after
        assert (facts.shape, 6, 4) == (before.shape, before.train_images, before.test_images)

    def test_augmentation_of_features_is_refused_by_plan_preparation_and_split(
        self, ready: Callable[..., Dataset], project: Path, tmp_path: Path
    ) -> None:
        dataset = ready()
        settings = replace(SETTINGS, augmentation="flip")
        code = CodeFolders(folders=(project,))
        for step in (
            lambda: describe(settings, cache=tmp_path / "cache", code=code),
            lambda: prepare(settings, cache=tmp_path / "cache", code=code),
            lambda: make_split(dataset, settings, study_seed=0, seed=0),
        ):
            with pytest.raises(DataInvalid, match=r"'flip' moves pixels.*set it to none @ data\.augmentation"):
                step()

    def test_it_is_split_as_images_are(self, ready: Callable[..., Dataset]) -> None:
        split = make_split(ready(count=40), replace(SETTINGS, limit=20, validation=0.2), study_seed=0, seed=0)

        assert (16, 4) == (len(split.train), len(split.validation))

    def test_damage_of_features_is_noticed(self, ready: Callable[..., Dataset]) -> None:
        dataset = ready()
        path = dataset.folder / "train_images.npy"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

        assert dataset.facts == ready().facts
        assert bytes(content) != path.read_bytes()


TRAINING = EngineTraining(
    epochs=2,
    batch_size=8,
    optimizer="adam",
    learning_rate=1e-2,
    schedule="constant",
    momentum=0.9,
    weight_decay=0.0,
)
LOSSES = """
from torch.nn import functional

def double(logits, labels):
    return 2 * functional.cross_entropy(logits, labels)

def broken(logits, labels):
    return logits.sum(1)
"""


class TestRuns:
    """Runs of a linear model on a data set and with a user's loss."""

    @pytest.fixture
    def train(
        self, ready: Callable[..., Dataset], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., RunResult]:
        for module in (setup, estimate):
            monkeypatch.setattr(module, "build_model", lambda _, shape, code: torch.nn.Linear(3, len(shape.classes)))
        (project / "losses.py").write_text(LOSSES)
        dataset = ready(count=40)

        def run(**training: object) -> RunResult:
            job = Job(
                planned=PlannedRun(identity="a", variant="baseline", seed=0),
                settings=settings_of(**training),
                heldout_split="test",
                data_folder=dataset.folder,
                folder=RunFolder(path=tmp_path / "run"),
                device="cpu",
                code=CodeFolders(folders=(project,)),
            )
            return run_jobs([pickle.loads(pickle.dumps(job))])[0]

        return run

    def test_features_are_trained_on_from_the_cache(self, train: Callable[..., RunResult]) -> None:
        result = train()

        assert (Outcome.DONE, None) == (result.outcome, result.error)

    def test_a_loss_in_the_training_section_is_used(self, train: Callable[..., RunResult], tmp_path: Path) -> None:
        def first_loss(**training: object) -> float:
            train(**training, learning_rate=1e-30)
            return RunFolder(path=tmp_path / "run").epochs()[0].train["loss"]

        assert first_loss(loss="losses.py:double") == pytest.approx(2 * first_loss())
        assert first_loss(loss="cross_entropy") == first_loss()

    @pytest.mark.parametrize(
        ("loss", "said"),
        [
            ("losses.py:broken", "returned a tensor of shape (8,); take its mean @ training.loss"),
            (
                "torch.nn:CrossEntropyLoss",
                "torch.nn:CrossEntropyLoss is a class; name a function, or a loss made of it",
            ),
            ("losses.py:duoble", "losses.py has no 'duoble'; did you mean 'double'? @ training.loss"),
        ],
    )
    def test_a_loss_that_cannot_be_used_fails_its_run_and_the_plan(
        self, train: Callable[..., RunResult], project: Path, loss: str, said: str
    ) -> None:
        result = train(loss=loss)
        settings = settings_of(loss=loss)
        outline = DataOutline(
            shape=DataShape(channels=0, height=0, width=0, classes=("a", "b"), features=(3,)),
            train_images=40,
            test_images=4,
        )

        assert Outcome.FAILED is result.outcome
        assert said in str(result.error)
        with pytest.raises(CodeInvalid, match=r"@ training\.loss"):
            estimate_seconds(settings, outline, device="cpu", code=CodeFolders(folders=(project,)))

    def test_the_time_of_a_run_on_features_is_estimated(self, train: Callable[..., RunResult]) -> None:
        outline = DataOutline(
            shape=DataShape(channels=0, height=0, width=0, classes=("a", "b"), features=(3,)),
            train_images=40,
            test_images=4,
        )

        assert 0 < estimate_seconds(settings_of(), outline, device="cpu")


def test_class_names_that_no_file_takes_are_kept_as_escapes(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "import numpy as np\n\n"
        "def load():\n"
        "    labels = np.arange(40) % 2\n"
        "    images = np.zeros((40, 8, 8), dtype=np.uint8) + 100 * labels.astype(np.uint8)[:, None, None]\n"
        "    return {'train': (images, labels), 'test': (images, labels), 'classes': ['half \\ud800', 'nul \\0']}\n"
    )
    text = {"name": "odd", "data": {"name": "odd.py:load", "validation": "none"}, "model": {"name": "cnn", "depth": 1}}
    more = {"training": {"epochs": 1}, "factors": {"model.depth": [1, 2]}, "seeds": 1}
    (tmp_path / "s.yaml").write_text(json.dumps({**text, **more}))

    outcome = bench.run(load_study(tmp_path / "s.yaml"))

    assert {Outcome.DONE: 2} == outcome.ended
    assert ("half \\ud800", "nul \\x00") == outcome.record.plan.data.shape.classes

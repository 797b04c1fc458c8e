"""What people write at first, and what it is called here: the message says so, or how it is written."""

from pathlib import Path

import pytest

from ablation.errors import StudyFileError
from ablation.study import load_study

STUDY = {
    "name": "name: mine",
    "data": "data: {name: digits}",
    "model": "model: {name: cnn}",
    "factors": "factors: {model.depth: [2, 3]}",
}
OWN = {
    **{key: STUDY[key] for key in ("name",)},
    "training": "training: {name: 'own.py:train', hidden: 3}",
    "factors": "factors: {training.hidden: [3, 4]}",
    "metric": "metric: {name: rmse, direction: minimize}",
}
TRAIN = "def train(settings, seed, report):\n    return {'rmse': settings['training']['hidden']}\n"
ON_TEST = "runs are compared on test: validation is for tuning and for training.epoch_choice"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(TRAIN)
    return tmp_path


def refused(folder: Path, lines: dict[str, str]) -> list[str]:
    file = folder / "study.yaml"
    file.write_text("\n".join(lines.values()))
    with pytest.raises(StudyFileError) as error:
        load_study(file)
    return str(error.value).splitlines()[1:]


@pytest.mark.parametrize(
    ("key", "line", "words"),
    [
        ("seed", "seed: 42", "is `study_seed`; `seeds` is the number of runs per variant"),
        ("metric", "metric: validation_accuracy", ON_TEST),
        ("metric", "metric: {name: val_loss}", ON_TEST),
        ("metric", "metric: f1", "declare a metric of your own: `metrics: {f1: {function: 'm.py:NAME', direction: "),
        ("metric", "metric: {name: f1}", "or by the name of torchmetrics' (`torchmetrics:MulticlassF1Score`)"),
        ("metric", "metric: accuracy", "for example `metric: {name: test_accuracy}`"),
        ("metric", "metric: {name: accuracy}", "did you mean 'test_accuracy'?"),
        ("model", "model: {name: resnet18}", "a model of torchvision is written 'torchvision:resnet18'"),
        ("model", "model: cnn", "write `model: {name: cnn}`"),
        ("data", "data: digits", "write `data: {name: digits}`"),
        ("factors", "factors: {model.depth: {min: 1, max: 3}}", "give the levels as a list, the baseline's among them"),
        ("factors", "factors: {model.norm: [none, batch]}", "did you mean 'model.normalization'?"),
        ("factors", "factors: {training.lr: [0.1, 0.01]}", "did you mean 'training.learning_rate'?"),
        ("factors", "factors: {depth: [2, 3]}", "did you mean 'model.depth'?"),
        ("factors", "factors: {model.zzz: [2, 3]}", "factors of model are: model.remove, "),
        ("epochs", "epochs: 5", "it is a key of training: `training: {epochs: …}`"),
        ("lr", "lr: 0.1", "it is a key of training: `training: {learning_rate: …}`"),
        ("training", "training: {lr: 0.1}", "it is called `learning_rate` here"),
        ("training", "training: {augmentation: flip}", "it is a key of data: `data: {augmentation: …}`"),
        ("device", "device: cuda", "give it to the command: `--device`"),
        ("grid", "grid: {}", "what is varied stands in `factors`"),
        ("baseline", "baseline: {}", "the sections data, model and training are the baseline"),
        ("questions", "questions: [model.depth]", "for example `effect: model.depth`"),
    ],
)
def test_a_first_try_is_told_what_it_is_called_here(folder: Path, key: str, line: str, words: str) -> None:
    (told,) = refused(folder, {**STUDY, key: line})

    assert words in told


@pytest.mark.parametrize(
    ("key", "line", "words"),
    [
        ("training", "training: {name: own.train, hidden: 3}", "write 'own:train'"),
        ("metric", "metric: rmse", "write `metric: {name: rmse, direction: minimize}`, or maximize"),
    ],
)
def test_a_first_try_of_a_training_function_is_told_too(folder: Path, key: str, line: str, words: str) -> None:
    (told,) = refused(folder, {**OWN, key: line})

    assert words in told


def test_a_name_that_stands_for_a_section_hides_no_other_error_and_makes_none(folder: Path) -> None:
    told = refused(folder, {**OWN, "training": "training: own.py:train"})

    assert 2 == len(told)
    assert "write `training: {name: 'own.py:train'}`" in told[0]
    assert "add `hidden: …` to training" in told[1]


@pytest.mark.parametrize("key", ["hypotheses", "fine", "zzz"])
def test_nothing_is_guessed_where_no_name_is_near(folder: Path, key: str) -> None:
    (told,) = refused(folder, {**STUDY, key: f"{key}: 1"})

    assert "did you mean" not in told
    assert "allowed: alpha, " in told

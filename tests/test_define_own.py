"""A study file from the signatures of one's own code: it plans at once, or says the one thing to fill in."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from ablation.cli import main
from ablation.code import CodeFolders
from ablation.errors import StudyFileError
from ablation.study import Study, load_study
from ablation.study.define_own import OwnCode, Written, own_study

LOOP = """
import nowhere_to_be_found

def train(hidden=16, dropout=0.5, learning_rate=1e-2, bias=True, optimizer="adam", epochs=3, widths=[8, 4], extra=None,
          seed=0, report=None):
    rmse = 1.0
    return {"rmse": rmse, "accuracy": 0.5, "size": 3}
"""


def defined(folder: Path, source: str, *, metric: str | None = None, **own: str) -> Written:
    (folder / "own.py").write_text(source)
    code = CodeFolders(folders=(folder,))
    return own_study(OwnCode(**own), code, path="mine.yaml", name="mine", seeds=3, metric=metric)


def loaded(folder: Path, written: Written) -> Study:
    file = folder / "mine.yaml"
    file.write_text(written.text)
    return load_study(file)


def test_parameters_become_settings_with_their_defaults_and_nothing_is_imported(tmp_path: Path) -> None:
    written = defined(tmp_path, LOOP, training="own.py:train")
    spec = loaded(tmp_path, written).spec

    assert () == written.to_fill_in
    assert {"training.hidden": (16, 32)} == dict(spec.factors)
    settings = spec.training.model_dump(mode="json")
    assert (16, 0.5, True, "adam", [8, 4]) == tuple(
        settings[key] for key in ("hidden", "dropout", "bias", "optimizer", "widths")
    )
    assert not {"seed", "report", "extra"} & settings.keys()
    assert ("rmse", "minimize", 3) == (spec.metric.name, spec.metric.direction, spec.seeds)
    assert "#   accuracy: maximize\n#   size: maximize or minimize" in written.text


def test_every_factor_that_is_proposed_may_be_uncommented(tmp_path: Path) -> None:
    text = defined(tmp_path, LOOP, training="own.py:train").text.replace("  # training.", "  training.")
    spec = loaded(tmp_path, Written(text=text, to_fill_in=())).spec

    assert {"hidden", "dropout", "learning_rate", "bias", "epochs"} == {
        path.removeprefix("training.") for path in spec.factors
    }
    assert (0.01, 0.001) == spec.factors["training.learning_rate"]


@pytest.mark.parametrize(
    ("source", "told", "refused"),
    [
        ("def train(width, report=None):\n return {'loss': 1}\n", "training.width: a value", "factors"),
        ("def train(width=3):\n return make()\n", "metric: a key of what", "metric.direction"),
        ("def train(width=3):\n return {'size': 1}\n", "metric: maximize or minimize", "metric.direction"),
        ("def train(kind='a'):\n return {'loss': 1}\n", "factors: what is varied", "factors"),
        ("def train(data, width=3):\n return {'loss': 1}\n", "data: own.py:train takes `data`", "data"),
        ("def train(a, b, c):\n return {'loss': 1}\n", "factors: what is varied", "factors"),
    ],
)
def test_what_cannot_be_known_is_said_and_the_file_refused_until_it_is_given(
    tmp_path: Path, source: str, told: str, refused: str
) -> None:
    written = defined(tmp_path, source, training="own.py:train")

    assert any(said.startswith(told) for said in written.to_fill_in)
    with pytest.raises(StudyFileError, match=f"@ {refused}"):
        loaded(tmp_path, written)


def test_a_metric_that_is_given_is_not_guessed(tmp_path: Path) -> None:
    spec = loaded(tmp_path, defined(tmp_path, LOOP, training="own.py:train", metric="size:maximize")).spec

    assert ("size", "maximize") == (spec.metric.name, spec.metric.direction)


def test_settings_that_a_function_reads_by_hand_are_listed(tmp_path: Path) -> None:
    source = """
def train(settings, seed, report):
    m, t = settings["model"], settings["training"]
    result = dict(score=t["width"] + t.get("depth", 2) + m["heads"])
    return result
"""
    written = defined(tmp_path, source, training="own.py:train")

    assert "  # width:    # FILL IN" in written.text
    assert "  depth: 2" in written.text
    assert "  name: score\n  direction: maximize" in written.text
    assert any("reads settings['model']" in said for said in written.to_fill_in)


def test_a_model_and_its_data_become_a_study_of_the_engine(tmp_path: Path) -> None:
    source = """
def build(data_shape, width=8, norm=None, kind="plain"):
    ...

def load(rows=100):
    ...
"""
    written = defined(tmp_path, source, model="own.py:build", data="own.py:load")
    spec = loaded(tmp_path, written).spec

    assert () == written.to_fill_in
    assert {"model.width": (8, 16)} == dict(spec.factors)
    assert ("own.py:load", 100) == (spec.data and spec.data.name, spec.data and spec.data.model_dump()["rows"])


def test_what_the_source_does_not_tell_is_imported(tmp_path: Path) -> None:
    source = "class Net:\n    def __init__(self, width=4, *, deep=False):\n        ...\n"

    assert {"model.width": (4, 8)} == dict(loaded(tmp_path, defined(tmp_path, source, model="own.py:Net")).spec.factors)


def test_what_a_study_cannot_compare_is_not_proposed_as_its_metric(tmp_path: Path) -> None:
    source = "def train(width=3):\n return {'f1@5': 1.0, 'top 1': 0.5, 'rmse': 2.0}\n"
    written = defined(tmp_path, source, training="own.py:train")

    assert loaded(tmp_path, written).spec.metric.name == "rmse"
    assert "f1@5" not in written.text
    assert "top 1" not in written.text


def test_a_file_in_a_folder_that_is_not_there_is_refused_in_these_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(LOOP)
    result = CliRunner().invoke(main, ["define", "--training", "own.py:train", "--output", "nowhere/mine.yaml"])

    assert result.exit_code
    assert "there is no folder nowhere" in " ".join(result.output.split())

"""No input of a command line ends in a traceback: what is wrong is said, with status 2."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import SPARED
from factories import make_plan

from ablation import pipeline
from ablation.cli import main
from ablation.errors import StudyFileError
from ablation.pipeline import find_study
from ablation.study import parse_study
from ablation.tracking import Tracker

ODD = os.fsdecode(b"caf\xe9")
"""A word of a command line that is not UTF-8."""
OWN = """
name: odd
training: {name: "t.py:train", x: 1}
factors: {training.x: [1, 2]}
metric: {name: score, direction: maximize, meaningful: 0.01}
"""
WORDS = [
    ["define", "--data", "images", "--root", ODD],
    ["define", "--depth", ODD],
    ["define", "--name", ODD],
    ["plan", f"{ODD}.yaml"],
    ["plan", "folder"],
    ["plan", "binary.yaml"],
    ["plan", "empty.yaml"],
    ["plan", "s.yaml/below"],
    ["plan", ""],
    ["plan", "s.yaml", "--set", f"{ODD}=1"],
    ["plan", "s.yaml", "--set", f"training.x={ODD}"],
    ["plan", "s.yaml", "--set", "training.x=9e999"],
    ["plan", "s.yaml", "--name", ODD],
    ["plan", "s.yaml", "--seeds", "9" * 30],
    ["plan", "s.yaml", "--device", ODD],
    ["study", "s.yaml", "--state-dir", ODD],
    ["study", "s.yaml", "--storage", ODD],
    ["study", "s.yaml", "--storage", f"sqlite:///{ODD}"],
    ["study", "s.yaml", "--workers", "-1"],
    ["summarize", ODD],
    ["summarize", "quick", "--metric", ODD],
    ["summarize", "quick", "--output", "s.yaml/below"],
    ["compare", "quick", ODD, "b"],
    ["export", "quick", "--output", "/dev/full"],
    ["export", ODD],
    ["status", ODD],
    ["status", "--tracking-uri", f"sqlite:///{ODD}"],
    ["sync", ODD],
    ["sync", "nobody's"],
    ["ui", "--host", ODD],
    [ODD],
]


@pytest.fixture
def place(mlflow_tracker: Tracker, store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a study file, what is none, and a store with a study that has no runs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    monkeypatch.delenv("ABLATION_STATE_DIR", raising=False)
    mlflow_tracker.open_study(make_plan())
    (tmp_path / "s.yaml").write_text(OWN)
    (tmp_path / "t.py").write_text("def train(settings, seed, report):\n    return {'score': 0.5}\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "empty.yaml").touch()
    return tmp_path


@pytest.mark.parametrize("words", WORDS, ids=lambda words: ascii(" ".join(words)))
def test_an_odd_input_is_refused_in_a_sentence(words: list[str], place: Path) -> None:
    ended = CliRunner().invoke(main, words)

    assert 2 == ended.exit_code, ended.exception
    assert "Error: " in ended.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files; raise the limit with `ulimit -n 4096`"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "cannot use /x: Permission denied\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "cannot write /x: No space left on device\n"),
    ],
)
def test_what_the_system_refuses_is_told(
    error: OSError, said: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "find_study", refused)

    ended = CliRunner().invoke(main, ["status", "quick"])

    assert 2 == ended.exit_code
    assert f"Error: {said}" in ended.stderr


def test_a_file_that_is_defined_may_be_called_as_nobody_can_write_it(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "ablation", "define", "--output", f"{ODD}.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": SPARED},
        capture_output=True,
    )

    assert 0 == ended.returncode, ended.stderr
    assert r"`ablation study caf\xe9.yaml`" in (tmp_path / f"{ODD}.yaml").read_text(encoding="utf-8")


def test_no_study_has_a_name_that_no_database_takes(mlflow_tracker: Tracker) -> None:
    mlflow_tracker.open_study(make_plan())

    assert mlflow_tracker.find_study(ODD) is None
    assert mlflow_tracker.find_study("a\0b") is None
    assert make_plan() == find_study("quick", tracker=mlflow_tracker).plan


@pytest.mark.parametrize("line", ['"\\udce9": 1', 'training: {"a\\udce9": 1}', 'factors: {"\\ud800": [1, 2]}'])
def test_a_key_that_is_not_unicode_is_refused_with_its_line(line: str) -> None:
    text = f"name: odd\ndata: {{name: digits}}\n{line}\n"

    with pytest.raises(StudyFileError, match=r"has a key that is not Unicode text: .*\\ud.* \(line 3\)"):
        parse_study(text.encode(), source="s.yaml")

"""Temporary folders are removed: at their end, or by the next execution where a process was killed."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ablation.storage.temporary import remove_left_behind, temporary_folder

KILLED = """
import os, signal
from ablation.storage.temporary import temporary_folder

with temporary_folder() as folder:
    (folder / "file").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_temporary_folder_is_gone_at_its_end(temporary: Path) -> None:
    with temporary_folder() as folder:
        (folder / "file").touch()
        assert temporary == folder.parent

    assert [] == list(temporary.iterdir())


def test_what_a_killed_process_left_is_removed_and_nothing_else(temporary: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED], check=False)
    (left,) = temporary.iterdir()
    of_another_machine = temporary / f"ablation-{left.name.split('-')[1]}-00000000-x"
    of_somebody_else = temporary / "ablation-notes"
    for folder in (of_another_machine, of_somebody_else):
        folder.mkdir()

    with temporary_folder() as mine:
        remove_left_behind()

        assert {mine, of_another_machine, of_somebody_else} == set(temporary.iterdir())

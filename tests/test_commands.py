"""A command that a message names leads to the same places as the one that said it."""

import errno
import os
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from ablation import errors
from ablation.cli import main
from ablation.commands import Commands
from ablation.storage.locks import coordinating


def test_a_command_has_the_options_that_were_given_and_it_takes() -> None:
    ours = Commands()
    with ours.called("python -m ablation", {"--state-dir": "my state", "--storage": "sqlite:///o.db"}):
        assert "python -m ablation status quick --state-dir 'my state'" == ours.shown("status", "quick")
        synced = ours.shown("sync", "a b")

    assert "python -m ablation sync 'a b' --storage sqlite:///o.db --state-dir 'my state'" == synced
    assert "ablation sync quick" == ours.shown("sync", "quick")


def advised(state: Path, *words: str, **environment: str) -> str:
    """Return the command by which a study is to be watched that another process runs, with a state folder."""
    with coordinating("tiny", storage_url=f"sqlite:///{state}/optuna.db", folder=state / "locks"):
        refused = CliRunner().invoke(main, ["sync", "tiny", *words], prog_name="python -m ablation", env=environment)
    assert 2 == refused.exit_code
    return refused.stderr.partition("Watch it with `")[2].partition("`")[0]


def test_a_study_that_is_run_by_another_process_is_watched_where_it_is(store_uri: str, tmp_path: Path) -> None:
    state = tmp_path / "my state"

    shown = advised(state, "--state-dir", str(state), "--tracking-uri", store_uri)

    assert f"python -m ablation status tiny --tracking-uri {store_uri} --state-dir '{state}'" == shown
    pasted = CliRunner().invoke(main, shlex.split(shown)[3:])
    assert "has no study 'tiny'" in pasted.stderr


def test_what_came_from_the_environment_is_not_repeated(store_uri: str, tmp_path: Path) -> None:
    shown = advised(tmp_path, ABLATION_STATE_DIR=str(tmp_path), MLFLOW_TRACKING_URI=store_uri)

    assert "python -m ablation status tiny" == shown


def test_no_password_is_shown(tmp_path: Path) -> None:
    shown = advised(tmp_path, "--state-dir", str(tmp_path), "--tracking-uri", "http://me:secret@127.0.0.1:9")

    assert "secret" not in shown
    assert "--tracking-uri 'http://me:***@127.0.0.1:9'" in shown


@pytest.mark.parametrize(
    "error",
    [
        errors.RunsNotRecorded("quick", 2, "it does not answer"),
        errors.DiskFull(Path("state"), os.strerror(errno.ENOSPC)),
    ],
)
def test_what_is_kept_is_said_with_where_it_is(error: errors.AblationError) -> None:
    assert "othing is lost" not in str(error)
    assert "kept" in str(error)
    assert "state" in str(error)

"""A place that cannot be used is told in a sentence: which, why, and what to do; nothing is made before."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from bench import Bench
from click.testing import CliRunner, Result

from ablation.cli import main
from ablation.errors import LockUnavailable, StateUnavailable
from ablation.storage.locks import coordinating, first_use
from ablation.storage.state import State
from ablation.study import load_study

OWN = """
name: state
training: {name: "t.py:train", x: 1}
factors: {training.x: [1, 2]}
metric: {name: score, direction: maximize, meaningful: 0.01}
seeds: 1
"""
NOBODY = 65_534


@pytest.fixture
def own_file(tmp_path: Path, store_uri: str) -> Path:
    """A study whose training function reads its own data; the working directory is the test's own."""
    (tmp_path / "t.py").write_text("def train(settings, seed, report):\n    return {'score': 0.5}\n")
    (tmp_path / "s.yaml").write_text(OWN)
    return tmp_path / "s.yaml"


def unusable(kind: str, folder: Path) -> Path:
    """Return a path that no folder can be made at."""
    if kind == "a name that is too long":
        return folder / ("x" * 300)
    (folder / "file").touch()
    return folder / "file" if kind == "a file" else folder / "file" / "below"


def invoked(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("kind", ["a file", "below a file", "a name that is too long"])
@pytest.mark.parametrize("study", ["own_file", "tiny_file"])
def test_a_study_whose_state_folder_cannot_be_made_is_refused_before_anything_is_made(
    kind: str, study: str, request: pytest.FixtureRequest, store_uri: str, tmp_path: Path
) -> None:
    file, folder = request.getfixturevalue(study), unusable(kind, tmp_path)
    before = {*tmp_path.iterdir()}

    ended = invoked("study", file, "--executor", "inline", "--state-dir", folder)

    assert 2 == ended.exit_code, ended.output
    assert f"Error: cannot use the state folder {folder}: " in ended.stderr
    assert "Choose a folder that can be written with --state-dir or ABLATION_STATE_DIR." in ended.stderr
    assert before == {*tmp_path.iterdir()}


@pytest.mark.parametrize("kind", ["a file", "below a file", "a name that is too long"])
@pytest.mark.parametrize("words", ["sync", "sync state", "status", "plan s.yaml", "components s.yaml"])
def test_no_command_ends_in_a_traceback_for_its_state_folder(
    kind: str, words: str, own_file: Path, tmp_path: Path
) -> None:
    ended = invoked(*words.split(), "--state-dir", unusable(kind, tmp_path))

    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.output
    assert ended.exit_code in (0, 2)


def test_an_empty_state_folder_is_none(own_file: Path) -> None:
    ended = invoked("study", own_file, "--state-dir", "")

    assert 2 == ended.exit_code
    assert "'--state-dir': it is empty" in ended.stderr


def test_a_state_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    tmp_path.chmod(0o755)
    script = (
        "import os, pathlib, sys\n"
        "from ablation.errors import StateUnavailable\n"
        "from ablation.storage.state import State\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "for name in sys.argv[1:]:\n"
        "    try: State(folder=pathlib.Path(name)).make()\n"
        "    except StateUnavailable as error: print(error)\n"
    )
    (tmp_path / "there").mkdir(mode=0o755)

    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "new"), str(tmp_path / "there")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ).stdout.splitlines()

    assert 2 == len(said)
    assert all("Permission denied" in line and "--state-dir" in line for line in said), said


def test_a_system_that_opens_no_more_files_is_told_as_such(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(StateUnavailable) as refused:
            State(folder=tmp_path).make()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert "Too many open files; raise the limit with `ulimit -n 4096`" in str(refused.value)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
class TestAFileSystemWithoutLocks:
    @pytest.fixture(autouse=True)
    def refusing(self, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
        def flock(file: object, operation: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", flock)

    def test_is_told_where_a_study_is_coordinated(self, number: int, tmp_path: Path) -> None:
        lock = tmp_path / "locks" / "quick.lock"

        with (
            pytest.raises(LockUnavailable) as refused,
            coordinating("quick", storage_url=f"sqlite:///{tmp_path}/optuna.db", folder=tmp_path / "locks"),
        ):
            pytest.fail("it was taken to be held")

        assert f"cannot lock {lock}: {os.strerror(number)}" in str(refused.value)
        assert f"as a local disk does. {lock.parent} is not: choose another with --state-dir" in str(refused.value)

    def test_is_told_where_a_database_is_opened(self, number: int, tmp_path: Path) -> None:
        with (
            pytest.raises(LockUnavailable, match=f"cannot lock {tmp_path}/optuna.db.lock"),
            first_use(f"sqlite:///{tmp_path}/optuna.db"),
        ):
            pytest.fail("it was taken to be held")

    def test_ends_a_study_before_anything_is_trained(self, number: int, own_file: Path, bench: Bench) -> None:
        with pytest.raises(LockUnavailable):
            bench.run(load_study(own_file))

        assert () == bench.tracker.study_names()

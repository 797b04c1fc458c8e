"""Files of runs are looked at before they are fetched, with one listing for each run that lies elsewhere."""

import os
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import FileInfo, LifecycleStage, Run, RunData, RunInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry

from ablation.tracking.mlflow.reading import Artifacts, local_folder


class Elsewhere(ArtifactRepository):
    """An artifact store of another machine, in this process; it remembers what it was asked for."""

    files: dict[str, tuple[int | None, bytes]] = {}  # noqa: RUF012 - MLflow makes the object itself
    asked: list[str] = []  # noqa: RUF012 - likewise
    is_down = False

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        self.asked.append(f"list {path}")
        if self.is_down:
            raise ConnectionError("refused")
        return [FileInfo(f"{path}/{name}", False, size) for name, (size, _) in self.files.items()]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self.asked.append(f"get {remote_file_path}")
        Path(local_path).write_bytes(self.files[Path(remote_file_path).name][1])

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> str:
        assert dst_path is not None
        path = Path(dst_path) / Path(artifact_path).name
        self._download_file(artifact_path, str(path))
        return str(path)

    def log_artifact(self, *_: Any) -> None: ...

    def log_artifacts(self, *_: Any) -> None: ...


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> type[Elsewhere]:
    monkeypatch.setitem(_artifact_repository_registry._registry, "elsewhere", Elsewhere)
    monkeypatch.setattr(Elsewhere, "files", {})
    monkeypatch.setattr(Elsewhere, "asked", [])
    return Elsewhere


def run_at(address: str, run_id: str = "one") -> Run:
    info = RunInfo(run_id, "0", "me", "FINISHED", 0, 1, LifecycleStage.ACTIVE, artifact_uri=address)
    return Run(info, RunData())


def test_a_file_that_is_too_large_is_not_fetched(elsewhere: type[Elsewhere]) -> None:
    elsewhere.files["plan.json"] = (1_000, b"x" * 1_000)

    found = Artifacts(tracking_uri="").read(run_at("elsewhere://host/one/artifacts"), "plan.json", limit=999)

    assert (None, "plan.json is damaged: it is larger than 0 MiB") == found
    assert ["list artifacts"] == elsewhere.asked


def test_a_file_whose_store_does_not_say_its_size_is_looked_at_when_it_is_here(elsewhere: type[Elsewhere]) -> None:
    elsewhere.files["plan.json"] = (None, b"x" * 1_000)

    found = Artifacts(tracking_uri="").read(run_at("elsewhere://host/one/artifacts"), "plan.json", limit=999)

    assert (None, "plan.json is damaged: it is larger than 0 MiB") == found


def test_the_files_of_a_run_are_listed_once_and_only_those_it_has_are_fetched(elsewhere: type[Elsewhere]) -> None:
    elsewhere.files["curves.csv"] = (3, "für".encode())
    artifacts = Artifacts(tracking_uri="")

    found = [
        artifacts.read(run_at(f"elsewhere://host/{run_id}/artifacts", run_id), name)
        for run_id in ("one", "two")
        for name in ("curves.csv", "evaluation.json", "curves.csv")
    ]

    assert [("für", ""), (None, ""), ("für", "")] * 2 == found
    assert ["list artifacts", "get curves.csv", "get curves.csv"] * 2 == elsewhere.asked


def test_a_place_that_does_not_answer_is_asked_once(
    elsewhere: type[Elsewhere], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "is_down", True)
    artifacts = Artifacts(tracking_uri="")

    found = {artifacts.read(run_at("elsewhere://host/x/artifacts", str(run)), "curves.csv") for run in range(3)}

    assert {(None, "the runs' files cannot be read: refused")} == found
    assert ["list artifacts"] == elsewhere.asked


def test_a_file_of_this_machine_is_read_where_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "my%20project"
    folder.mkdir()
    (folder / "plan.json").write_text("für", encoding="utf-8")
    artifacts = Artifacts(tracking_uri="")

    assert ("für", "") == artifacts.read(run_at(folder.as_uri()), "plan.json")
    assert (None, "") == artifacts.read(run_at(folder.as_uri()), "curves.csv")


def test_a_pipe_and_a_link_to_elsewhere_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "secret").write_text("secret")
    os.mkfifo(tmp_path / "run" / "pipe")
    (tmp_path / "run" / "link").symlink_to(tmp_path / "secret")
    artifacts = Artifacts(tracking_uri="")

    found = [artifacts.read(run_at(str(tmp_path / "run")), name) for name in ("pipe", "link")]

    assert [(None, "pipe cannot be read"), (None, "link cannot be read")] == found


@pytest.mark.parametrize(
    ("address", "folder"),
    [
        ("/tmp/what?/mlruns/1", "/tmp/what?/mlruns/1"),
        ("/tmp/#1/mlruns/1", "/tmp/#1/mlruns/1"),
        ("file:///tmp/my%2520project/1", "/tmp/my%20project/1"),
        ("s3://bucket/1", None),
        ("mlflow-artifacts:/1/a", None),
        ("file://host/tmp/1", None),
    ],
)
def test_only_an_address_of_this_machine_names_a_folder(address: str, folder: str | None) -> None:
    assert (Path(folder) if folder else None) == local_folder(address)

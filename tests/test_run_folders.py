"""What is read from a run's folder is checked there, and what lies in it can be recorded, whatever was left in it."""

import dataclasses
import json
import os
import random
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import _validate_metric, _validate_metric_name

from ablation.records import (
    EpochMetrics,
    Outcome,
    ReportedEpoch,
    RunResult,
    is_count,
    is_number,
    is_recordable_name,
    recordable_text,
)
from ablation.storage.recordable_files import keep_recordable_files
from ablation.storage.run_folder import About, RunFolder
from ablation.storage.state import State

IDENTITY = "0123456789abcdef0123456789abcdef"
RESULT = RunResult(identity=IDENTITY, outcome=Outcome.DONE, metrics={"score": 0.5}, epochs=3, left_out=("a note",))
REPORTED = [ReportedEpoch(epoch=epoch, metrics={"score": epoch / 4}, timestamp_ms=epoch) for epoch in (1, 2, 3)]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
IN_ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(path=tmp_path / IDENTITY)
    made.path.mkdir()
    return made


def measured(**changes: Any) -> EpochMetrics:
    splits = {split: {"loss": 0.5, "accuracy": 0.5} for split in ("train", "sample", "heldout")}
    values = {field.name: splits.get(field.name, 0.5) for field in dataclasses.fields(EpochMetrics)}
    return EpochMetrics(**{**values, "epoch": 1, "timestamp_ms": 1, **changes})


def damaged(content: bytes, seed: int) -> bytes:
    """Cut a text, change some of its bytes, or repeat a part of it."""
    chance = random.Random(seed)
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        start = chance.randint(0, len(changed))
        stop = min(len(changed), start + chance.randint(0, 9))
        parts = [b"", b"NaN", b"1e999", b'"', b"-1", b"\xff", b"\n", b"true", b"[" * 9, bytes(changed[start:stop]) * 2]
        changed[start:stop] = chance.choice(parts)
    return bytes(changed[: chance.randint(0, len(changed))] if chance.random() < 0.3 else changed)


@pytest.mark.parametrize("text", ["\ud800 cut", "a\0b", "é\n\tfine", "\U0001f600"])
def test_every_text_of_a_result_is_one_that_a_database_takes(text: str, folder: RunFolder) -> None:
    values = {**dataclasses.asdict(RESULT), "error": text, "path_note": text, "left_out": [text]}
    (folder.path / "result.json").write_text(json.dumps(values))

    found = folder.ended()

    assert found is not None
    for one in (found.error, found.path_note, *found.left_out):
        assert one is not None
        assert text.encode("utf-8", "backslashreplace").replace(b"\0", b"\\x00") == one.encode("utf-8")


@given(st.text())
def test_a_recordable_text_is_encoded_and_holds_no_nul(text: str) -> None:
    assert "\0" not in recordable_text(text).encode().decode()


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": 5},
        {"outcome": "done"},
        {"metrics": {"score": float("nan")}},
        {"metrics": {"score": float("inf")}},
        {"metrics": {"score": 10**400}},
        {"metrics": {"score": "0.5"}},
        {"metrics": {"score": True}},
        {"metrics": {"acc@1": 0.5}},
        {"metrics": {5: 0.5}},
        {"metrics": [("score", 0.5)]},
        {"epochs": -1},
        {"epochs": 2.0},
        {"epochs": 2**63},
        {"diverged_epoch": "2"},
        {"error": b"bytes"},
        {"failure": "bad luck"},
        {"path": None},
        {"ended_ms": None},
        {"left_out": ["a list"]},
        {"left_out": (5,)},
    ],
)
def test_a_result_is_valid_by_construction(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"no result of a run, for its {next(iter(changes))}"):
        dataclasses.replace(RESULT, **changes)


def test_a_result_of_another_identity_is_none(folder: RunFolder) -> None:
    folder.finish(dataclasses.replace(RESULT, identity="f" * 32))

    assert (None, None) == (folder.ended(), folder.result())


def test_a_result_of_an_earlier_version_is_read_without_metrics_that_no_tracker_takes(folder: RunFolder) -> None:
    values = {**dataclasses.asdict(RESULT), "metrics": {"score": 0.5, "acc@1": 0.25, "f1 (macro)": 0.5}}
    del values["left_out"]
    (folder.path / "result.json").write_text(json.dumps(values))

    found = folder.ended()

    assert found is not None
    assert {"score": 0.5} == found.metrics
    assert [True, True] == [
        said.startswith(f"metric {name!r} is left out: ")
        for said, name in zip(found.left_out, ("acc@1", "f1 (macro)"), strict=True)
    ]


@pytest.mark.parametrize(
    "changes",
    [{"metrics": {"score": float("nan")}}, {"outcome": "won"}, {"outcome": ["done"]}, {"epochs": None}, {"odd": 1}],
)
def test_a_result_that_is_none_is_as_if_there_were_no_file(changes: dict[str, Any], folder: RunFolder) -> None:
    (folder.path / "result.json").write_text(json.dumps({**dataclasses.asdict(RESULT), **changes}))

    assert folder.ended() is None


@given(st.integers(0, 2**32) | JSON)
@IN_ONE_FOLDER
def test_whatever_stands_in_a_results_file_is_a_valid_result_or_none(folder: RunFolder, chosen: Any) -> None:
    content = json.dumps(dataclasses.asdict(RESULT), indent=1).encode()
    is_seed = isinstance(chosen, int)
    (folder.path / "result.json").write_bytes(damaged(content, chosen) if is_seed else json.dumps(chosen).encode())

    found = folder.ended()

    assert found is None or found == dataclasses.replace(found)
    assert found is None or IDENTITY == found.identity


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"",
        b"\xff\xfe",
        b"[1]",
        b"5",
        b"[" * 100_000,
        b'{"epoch": 2}',
        b'{"epoch": "2", "metrics": {}, "timestamp_ms": 2}',
        b'{"epoch": 2, "metrics": [], "timestamp_ms": 2}',
        b'{"epoch": 2, "metrics": {}, "timestamp_ms": -2}',
        b'{"epoch": 2, "metrics": {}, "timestamp_ms": 2, "more": 1}',
        b'{"epoch": 0, "metrics": {}, "timestamp_ms": 2}',
    ],
)
def test_a_damaged_line_is_left_out_and_the_others_count(line: bytes, folder: RunFolder) -> None:
    for epoch in REPORTED:
        folder.append_epoch(epoch)
    lines = (folder.path / "metrics.jsonl").read_bytes().split(b"\n")
    (folder.path / "metrics.jsonl").write_bytes(b"\n".join([lines[0], line, lines[2], b""]))

    assert ([1, 3], 3) == ([epoch.epoch for epoch in folder.epochs()], getattr(folder.latest_epoch(), "epoch", None))

    (folder.path / "metrics.jsonl").write_bytes(b"\n".join([lines[0], line, b""]))

    assert (REPORTED[:1], REPORTED[0]) == ([*folder.epochs()], folder.latest_epoch())


def test_epochs_of_an_earlier_version_are_read_without_metrics_that_no_tracker_takes(folder: RunFolder) -> None:
    folder.append_epoch(ReportedEpoch(epoch=1, metrics={"score": 0.5, "acc@1": 0.1, "": 1.0}, timestamp_ms=1))

    assert ({"score": 0.5},) == tuple(epoch.metrics for epoch in folder.epochs() if isinstance(epoch, ReportedEpoch))


def test_an_epoch_that_diverged_is_read_as_it_was_written(folder: RunFolder) -> None:
    folder.append_epoch(measured(train={"loss": float("inf"), "accuracy": 0.5}))

    assert (measured(train={"loss": float("inf"), "accuracy": 0.5}),) == folder.epochs()


@given(st.integers(0, 2**32), st.booleans())
@IN_ONE_FOLDER
def test_whatever_stands_in_the_file_of_epochs_reading_it_gives_valid_ones(
    folder: RunFolder, seed: int, is_own: bool
) -> None:
    written = REPORTED if is_own else [measured(epoch=epoch) for epoch in (1, 2, 3)]
    content = b"".join(json.dumps(dataclasses.asdict(epoch)).encode() + b"\n" for epoch in written)
    (folder.path / "metrics.jsonl").write_bytes(damaged(content, seed))

    found, latest = folder.epochs(), folder.latest_epoch()

    assert sorted({epoch.epoch for epoch in found}) == [epoch.epoch for epoch in found]
    for epoch in (*found, *([latest] if latest is not None else [])):
        assert is_count(epoch.timestamp_ms)
        if isinstance(epoch, ReportedEpoch):
            for name, value in epoch.metrics.items():
                _validate_metric(name, value, epoch.timestamp_ms, epoch.epoch)
        else:
            assert all(isinstance(float(value), float) for value in epoch.by_name("test").values())
            for name, value in epoch.by_name("test").items():
                _validate_metric(name, value, epoch.timestamp_ms, epoch.epoch)


@given(st.integers(0, 2**32) | JSON)
@IN_ONE_FOLDER
def test_whatever_was_noted_of_a_run_of_tuning_is_whole_or_nothing(folder: RunFolder, chosen: Any) -> None:
    folder.note_about(About(identity=IDENTITY, name="tuning/x/trial-0", settings={"variant": "x", "seed": 7}))
    whole = folder.about()
    if isinstance(chosen, int):
        content = damaged((folder.path / "about.json").read_bytes(), chosen)
    else:
        content = json.dumps({"identity": IDENTITY, "name": "n", "settings": chosen}).encode()
    (folder.path / "about.json").write_bytes(content)

    found = folder.about()

    assert whole is not None
    assert 7 == whole.seed
    assert found is None or (isinstance(found.seed, int) and isinstance(found.settings["variant"], str))


@given(st.integers(0, 2**32) | JSON)
@IN_ONE_FOLDER
def test_whatever_stands_in_its_beginning_a_folder_says_texts_that_are_recorded(folder: RunFolder, chosen: Any) -> None:
    folder.take_over({"host": "bench", "version": "1"}, is_resumable=True)
    content = (folder.path / "started.json").read_bytes()
    changed = {"attempt": chosen, "owner": chosen, "provenance": {"host": chosen, "a@b": "c"}, "is_resumable": chosen}
    is_seed = isinstance(chosen, int)
    (folder.path / "started.json").write_bytes(damaged(content, chosen) if is_seed else json.dumps(changed).encode())

    attempt, provenance = folder.attempt(), folder.provenance()

    assert attempt is None or (attempt and attempt.isprintable())
    assert all(is_recordable_name(name) and text == recordable_text(text) for name, text in provenance.items())
    assert folder.lasting_epochs() >= 0


def test_a_folder_of_tuning_whose_note_is_damaged_is_not_recorded_and_stops_nothing(tmp_path: Path) -> None:
    state = State(folder=tmp_path)
    whole = {"name": "n", "settings": {"variant": "x", "seed": 7}}
    odd = [{"name": "\ud800"}, {"settings": {"variant": "\0", "seed": 7}}, {"settings": {"variant": "x", "seed": "7"}}]
    odd += [{"settings": {"variant": "x", "seed": 7, "a@b": 1}}, {"identity": "another"}]
    notes = [json.dumps({"identity": f"{number}", **whole, **changes}) for number, changes in enumerate(odd)]
    for number, note in enumerate([*notes, '{"identity": 5}', '{"settings": {}}', "[", "{}"]):
        begun = state.tuning("study", f"{number}")
        begun.path.mkdir(parents=True)
        begun.finish(dataclasses.replace(RESULT, identity=f"{number}"))
        (begun.path / "about.json").write_text(note)

    assert () == state.unrecorded_tuning("study")


@pytest.mark.slow
@given(st.text(max_size=12) | st.text(alphabet="a./ -_:@%\n", max_size=8) | st.from_regex(r"[\w/.]{245,255}"))
@settings(max_examples=500)
def test_every_name_that_is_accepted_is_one_that_mlflow_accepts(name: str) -> None:
    if is_recordable_name(name):
        _validate_metric_name(name)


@pytest.mark.parametrize("name", ["acc@1", "f1 (macro)", "loss%", "a//b", "", "/a", "..", "a/..", "../a", "x" * 251])
def test_names_that_mlflow_refuses_are_refused(name: str) -> None:
    assert not is_recordable_name(name)
    if len(name) <= 250:
        with pytest.raises(MlflowException):
            _validate_metric_name(name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), True, None, "1", 10**400, [1]])
def test_what_is_no_finite_number_is_no_number(value: Any) -> None:
    assert not is_number(value)


def _leave_everything(folder: Path) -> None:
    (folder / "kept.txt").write_text("kept")
    (folder / "deep").mkdir()
    (folder / "deep" / "kept too.txt").write_text("kept")
    (folder / "link.txt").symlink_to(folder / "kept.txt")
    (folder / "dangling").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "deep" / "above").symlink_to(folder, target_is_directory=True)
    (folder / ("l" * 250)).symlink_to(folder / "kept.txt")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path is short
        server.bind("socket")
        os.chdir(here)
    for name in (b"tab\tname", b"latin-\xe9", b"a#b", b"what?", b"%2e%2e", b"back\\slash"):
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).write_text("odd name")
    (folder / "a_b").write_text("taken")


def test_files_that_no_store_takes_are_left_out_and_said_and_the_others_are_kept(tmp_path: Path) -> None:
    _leave_everything(tmp_path)

    said = keep_recordable_files(tmp_path)

    left_out = [one.partition(" is left out: ")[0] for one in said if " is left out: " in one]
    assert ["'dangling'", "'deep/above'", "'loop'", "'pipe'", "'socket'"] == [one[5:] for one in sorted(left_out)]
    kept = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    odd = {"tab_name", "latin-_", "a_b_", "what_", "_2e_2e", "back_slash"}
    assert {"kept.txt", "deep/kept too.txt", "link.txt", "l" * 250, "a_b", *odd} == kept.keys()
    assert not any(path.is_symlink() for path in kept.values())
    assert ("kept", "taken", "odd name") == tuple(kept[name].read_text() for name in ("link.txt", "a_b", "a_b_"))


def test_making_files_recordable_again_changes_nothing(tmp_path: Path) -> None:
    _leave_everything(tmp_path)
    keep_recordable_files(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    assert () == keep_recordable_files(tmp_path)
    assert before == sorted(tmp_path.rglob("*"))


def test_a_copy_that_was_cut_off_is_no_file_of_the_run(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-copy-7").write_text("hal")

    assert () == keep_recordable_files(tmp_path)
    assert [] == list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_has_nothing_to_be_left_out(tmp_path: Path) -> None:
    assert () == keep_recordable_files(tmp_path / "none")


@pytest.mark.skipif(os.geteuid() == 0, reason="this user may read every file")
def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "file").write_text("")
    (tmp_path / "closed").chmod(0)

    assert ["closed", "secret"] == [said.split("'")[1] for said in keep_recordable_files(tmp_path)]
    assert [] == list(tmp_path.iterdir())


@pytest.mark.slow
def test_mlflow_takes_what_was_made_recordable(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    _leave_everything(files)
    keep_recordable_files(files)
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("files", artifact_location=(tmp_path / "kept").as_uri())
    run = client.create_run(experiment)

    client.log_artifacts(run.info.run_id, str(files))

    found = {Path(file.path).name for file in client.list_artifacts(run.info.run_id)}
    assert {path.name for path in files.iterdir()} == found

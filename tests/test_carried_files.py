"""What is carried between machines: which files, whole or not at all, and epochs as they are measured."""

import os
from pathlib import Path

import pytest

from ablation.executors.nodes.delivering import place_checkpoints, place_ended
from ablation.executors.nodes.files import (
    MOST_FILES,
    CarriedFile,
    CarriedWrong,
    Incoming,
    check_name,
    checked,
    described,
    files_of_begun,
    files_of_ended,
    is_of_a_run,
    read_piece,
)
from ablation.executors.nodes.news import FolderNews, FolderWatch
from ablation.executors.nodes.offers import Offers

CHECKPOINT = "checkpoints/epoch-000003-eager.pt"
OWN = "checkpoints/own-000012-epoch-000003.pt"


def _write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def _arrived(folder: Path, beside: Path, names: list[str]) -> Incoming:
    incoming = Incoming(beside, [described(folder, name) for name in names])
    incoming.begin()
    for name in names:
        incoming.write(name, 0, (folder / name).read_bytes())
    incoming.check()
    return incoming


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../x",
        "artifacts/../../x",
        "a//b",
        "./a",
        "a/./b",
        "a/",
        "a\x00b",
        "a\nb",
        "a/\ud800",
        "a/" + 256 * "b",
    ],
)
def test_a_name_that_may_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(CarriedWrong, match="no name of a file that may be sent"):
        check_name(name)


@pytest.mark.parametrize(
    "name",
    ["metrics.jsonl", "started.json", "result.json", CHECKPOINT, OWN, "artifacts/model.pt", "artifacts/files/a b/c"],
)
def test_files_of_a_run_are_taken(name: str) -> None:
    assert is_of_a_run(name)


@pytest.mark.parametrize(
    "name",
    [
        "about.json",
        "checkpoints/epoch-3.sh",
        "checkpoints/a/epoch-000003-eager.pt",
        "x/artifacts/a",
        "artifacts",
        "artifacts/.unfinished-model.pt.7",
        "other.json",
    ],
)
def test_nothing_else_is_taken(name: str) -> None:
    assert not is_of_a_run(name)
    with pytest.raises(CarriedWrong, match="which is no file of a run"):
        checked([{"name": name, "size": 1, "digest": "0" * 64}])


def test_a_name_is_not_of_a_file_and_of_a_folder() -> None:
    files = [{"name": name, "size": 1, "digest": "0" * 64} for name in ("artifacts/a", "artifacts/a/b/c")]

    with pytest.raises(CarriedWrong, match="it sends 'artifacts/a/b/c', which is no file of a run"):
        checked(files)


@pytest.mark.parametrize(
    "plain",
    [
        {"name": "result.json", "size": -1, "digest": "0" * 64},
        {"name": "result.json", "size": 1, "digest": "0"},
        {"name": "result.json", "size": 1},
        {"name": 7, "size": 1, "digest": "0" * 64},
        None,
        "result.json",
    ],
)
def test_what_describes_no_file_is_refused(plain: object) -> None:
    with pytest.raises(CarriedWrong, match="describes no file"):
        checked([plain])


def test_a_run_may_be_so_large_and_no_larger() -> None:
    large = {"name": "artifacts/a", "size": 9 * 1024**3, "digest": "0" * 64}
    many = [{"name": f"artifacts/{number}", "size": 0, "digest": "0" * 64} for number in range(MOST_FILES + 1)]

    assert len(checked([large])) == 1
    for plain in ([large, {**large, "name": "artifacts/b"}], many):
        with pytest.raises(CarriedWrong, match="more than"):
            checked(plain)


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    _write(tmp_path, secret="secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")

    for name in ("link", "pipe", "nothing"):
        with pytest.raises(OSError, match=name):
            read_piece(tmp_path / name, 0)


def test_links_among_artifacts_are_left_out(tmp_path: Path) -> None:
    run = _write(tmp_path / "run", result_json="{}", artifacts__curves="1")
    (run / "artifacts" / "link").symlink_to("/etc/passwd")

    assert files_of_ended(run) == ["artifacts/curves", "result.json"]


def test_what_arrives_must_be_what_was_announced(tmp_path: Path) -> None:
    announced = described(_write(tmp_path, file="seven"), "file")
    incoming = Incoming(tmp_path / "beside", [announced])
    incoming.begin()

    with pytest.raises(CarriedWrong, match="was not announced, or not of that size"):
        incoming.write("file", 0, b"seven and more")
    with pytest.raises(CarriedWrong, match="was not announced"):
        incoming.write("other", 0, b"x")
    incoming.write("file", 0, b"sevem")
    with pytest.raises(CarriedWrong, match="has not arrived as it was announced"):
        incoming.check()
    incoming.write("file", 0, b"sev")
    incoming.write("file", 3, b"en")
    incoming.check()


def test_an_empty_file_arrives(tmp_path: Path) -> None:
    incoming = Incoming(tmp_path / "beside", [described(_write(tmp_path, file=""), "file")])

    incoming.begin()

    incoming.check()


def test_of_a_run_without_a_result_what_it_resumes_from_is_sent(tmp_path: Path) -> None:
    run = _write(tmp_path, started_json="{}", artifacts__half="1")
    _write(run, **{"metrics.jsonl": "{}\n", "checkpoints__epoch-000003-eager.pt": "c", "checkpoints__other": "x"})

    assert files_of_ended(run) == ["started.json", "metrics.jsonl", CHECKPOINT] == files_of_begun(run)


def test_what_a_training_function_has_kept_is_sent_too_the_latest_first(tmp_path: Path) -> None:
    run = _write(tmp_path, started_json="{}")
    _write(run, **{"checkpoints__own-000011-epoch-000003.pt": "b", "checkpoints__own-000012-epoch-000003.pt": "c"})

    assert files_of_begun(run) == ["started.json", OWN, OWN.replace("12", "11")]
    assert 12 == Offers({"run": run}, beside=lambda: tmp_path / "beside").common_epoch()


def test_of_a_run_with_a_result_the_result_comes_last_and_checkpoints_stay(tmp_path: Path) -> None:
    run = _write(tmp_path, started_json="{}", result_json="{}", artifacts__a="1")
    _write(run, **{"checkpoints__epoch-000003-eager.pt": "c"})

    assert files_of_ended(run) == ["started.json", "artifacts/a", "result.json"]


def test_a_run_that_ended_elsewhere_has_here_what_it_had_there_and_nothing_else(tmp_path: Path) -> None:
    there = _write(tmp_path / "there", started_json="{1}", result_json="{2}", artifacts__a="3")
    _write(there, **{"metrics.jsonl": "{4}\n"})
    here = _write(tmp_path / "here", started_json="{}", artifacts__old="x", result_json="old")
    _write(here, **{"checkpoints__epoch-000003-eager.pt": "c", "metrics.jsonl": "{}\n{}\n"})

    place_ended(here, _arrived(there, tmp_path / "beside", files_of_ended(there)))

    assert {path.relative_to(here).as_posix(): path.read_text() for path in here.rglob("*") if path.is_file()} == {
        "started.json": "{1}",
        "metrics.jsonl": "{4}\n",
        "artifacts/a": "3",
        "result.json": "{2}",
    }


def test_checkpoints_of_runs_trained_together_are_kept_before_any_older_one_goes(tmp_path: Path) -> None:
    here, arrived = {}, {}
    for number in (0, 1):
        there = _write(tmp_path / f"there{number}", **{"checkpoints__epoch-000009-fused.pt": "new"})
        here[number] = tmp_path / f"here{number}"
        for epoch in (3, 6):
            _write(here[number], **{f"checkpoints__epoch-{epoch:06d}-fused.pt": "old"})
        arrived[here[number]] = _arrived(there, tmp_path / f"beside{number}", ["checkpoints/epoch-000009-fused.pt"])

    place_checkpoints(arrived)

    for folder in here.values():
        kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
        assert kept == ["epoch-000006-fused.pt", "epoch-000009-fused.pt"]


def _told(watch: FolderWatch, serial: int) -> FolderNews:
    news = watch.news(serial)
    assert news is not None
    return FolderNews.from_plain(news.plain())


def test_epochs_are_told_once_each(tmp_path: Path) -> None:
    there, here = _write(tmp_path / "there", **{"metrics.jsonl": "1\n"}), tmp_path / "here"
    _write(here, **{"metrics.jsonl": "1\n"})
    watch = FolderWatch(there)
    with (there / "metrics.jsonl").open("a") as file:
        file.write("2\n")

    news = _told(watch, serial=1)
    news.write(here)
    watch.confirm(1)

    assert (news.offset, news.epochs, news.is_anew) == (2, b"2\n", False)
    assert (here / "metrics.jsonl").read_text() == "1\n2\n"
    assert watch.news(2) is None


def test_an_answer_that_was_lost_is_told_again(tmp_path: Path) -> None:
    there = _write(tmp_path / "there", **{"metrics.jsonl": ""})
    watch = FolderWatch(there)
    _write(there, **{"metrics.jsonl": "1\n"})
    watch.news(1)
    watch.confirm(0)

    assert watch.is_dirty
    assert _told(watch, 2).epochs == b"1\n"


def test_an_answer_that_comes_twice_changes_nothing(tmp_path: Path) -> None:
    there, here = _write(tmp_path / "there", **{"metrics.jsonl": ""}), tmp_path / "here"
    watch = FolderWatch(there)
    _write(there, **{"metrics.jsonl": "1\n2\n"})
    news = _told(watch, 1)

    news.write(here)
    news.write(here)

    assert (here / "metrics.jsonl").read_text() == "1\n2\n"


def test_a_run_that_begins_anew_has_its_former_epochs_no_more(tmp_path: Path) -> None:
    there = _write(tmp_path / "there", started_json="first", **{"metrics.jsonl": "1\n2\n3\n"})
    here = _write(tmp_path / "here", started_json="first", result_json="{}", **{"metrics.jsonl": "1\n2\n3\n"})
    watch = FolderWatch(there)
    _write(there, started_json="second", **{"metrics.jsonl": "4\n"})

    _told(watch, 1).write(here)

    assert (here / "metrics.jsonl").read_text() == "4\n"
    assert (here / "started.json").read_text() == "second"
    assert not (here / "result.json").exists()


def test_a_run_that_goes_back_to_a_checkpoint_has_the_epochs_after_it_no_more(tmp_path: Path) -> None:
    there = _write(tmp_path / "there", **{"metrics.jsonl": "1\n2\n3\n"})
    here = _write(tmp_path / "here", **{"metrics.jsonl": "1\n2\n3\n"})
    watch = FolderWatch(there)
    _write(there, **{"metrics.jsonl": "1\n"})

    _told(watch, 1).write(here)

    assert (here / "metrics.jsonl").read_text() == "1\n"


@pytest.mark.parametrize("plain", [None, {}, {"started": None, "epochs": "1", "offset": 0, "is_anew": False}])
def test_news_that_are_none_are_refused(plain: object) -> None:
    with pytest.raises(CarriedWrong, match="news of a run that are none"):
        FolderNews.from_plain(plain)


def test_a_carried_file_is_described_by_name_size_and_digest(tmp_path: Path) -> None:
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1

    assert described(_write(tmp_path, file="abc"), "file") == CarriedFile(name="file", size=3, digest=digest)

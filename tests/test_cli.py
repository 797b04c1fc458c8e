"""The command line as its users meet it: a study of a second, and their mistakes."""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from conftest import PROJECT, TINY, answer_alone, draw_vectors_alone
from factories import make_plan
from mlflow.tracking import MlflowClient

from ablation.cli import main
from ablation.cli.tables import StudyStanding, status_text
from ablation.output import cells, plain_json
from ablation.storage.holder import Holder
from ablation.study import load_study
from ablation.tracking import StudyRecord, open_mlflow

Run = Callable[..., Result]
SETTINGS = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "ABLATION_STATE_DIR")


def invoke(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, list(arguments))


def furnish(folder: Path, data_cache: Path) -> None:
    """Give a working directory a study file and prepared data."""
    (folder / ".ablation").mkdir()
    (folder / ".ablation" / "data").symlink_to(data_cache)
    (folder / "tiny.yaml").write_bytes(TINY)


@pytest.fixture
def run(store_uri: str, data_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vector_figures: None) -> Run:
    """Run a command in a fresh store; the working directory is the test's own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    furnish(tmp_path, data_cache)
    return invoke


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A study that was run by a command, the folder where it was, and what the command said."""

    folder: Path
    said: Result


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory, data_cache: Path, empty_store: Path) -> Recorded:
    """One study, trained and drawn once, as that takes longer than all the questions."""
    folder = tmp_path_factory.mktemp("recorded")
    furnish(folder, data_cache)
    shutil.copy(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        move_to(folder, patch)
        draw_vectors_alone(patch)
        return Recorded(folder=folder, said=study(invoke))


@pytest.fixture
def recorded(recording: Recorded, monkeypatch: pytest.MonkeyPatch, vector_figures: None) -> Recorded:
    """The working directory is the one of a study that is recorded, which is only read."""
    move_to(recording.folder, monkeypatch)
    return recording


def move_to(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    for name in SETTINGS:
        patch.delenv(name, raising=False)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")


def study(run: Run, *arguments: str) -> Result:
    return run("study", "tiny.yaml", "--executor", "inline", *arguments)


def test_a_study_runs_and_says_what_it_found_and_where(recording: Recorded) -> None:
    result = recording.said

    assert 0 == result.exit_code, result.output
    assert "tiny: 8 done, 0 diverged, 0 failed of 8 runs" in result.stdout
    *_, report, last = result.stdout.splitlines()
    assert report.endswith("reports/tiny/report.html")
    assert last == "Start MLflow's UI: python -m ablation ui"
    assert "[8/8]" in result.stderr


@pytest.mark.usefixtures("recorded")
def test_the_same_command_again_trains_nothing() -> None:
    again = study(invoke)

    assert 0 == again.exit_code
    assert "8 done" in again.stdout
    assert "[" not in again.stderr


def test_json_is_all_that_stands_on_standard_output(run: Run) -> None:
    result = study(run, "--json", "--seeds", "1")

    printed = json.loads(result.stdout)
    assert ("tiny", 4, 4, 0) == (printed["study"], printed["runs"], printed["done"], printed["failed"])
    assert Path(printed["report"], "report.json").exists()


def test_summarize_makes_the_report_again_elsewhere(recorded: Recorded, tmp_path: Path) -> None:
    result = invoke("summarize", "tiny", "--output", str(tmp_path / "again"))

    assert 0 == result.exit_code, result.output
    first = recorded.folder / ".ablation" / "reports" / "tiny"
    for name in ("report.md", "report.html", "report.json", "tables.tex", "figures/forest.svg", "figures/forest.pdf"):
        assert (first / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert result.stdout.index("undecided") < result.stdout.index("In words") < result.stdout.index("Variants")


@pytest.mark.slow
def test_what_a_recorded_study_can_be_asked(recorded: Recorded, tmp_path: Path) -> None:
    kept = recorded.folder / ".ablation" / "reports" / "tiny"

    forms = {
        "markdown": "report.md",
        "html": "report.html",
        "json": "report.json",
        "latex": "tables.tex",
        "latex-wide": "tables-wide.tex",
    }
    for form, name in forms.items():
        assert (kept / name).read_text(encoding="utf-8") == invoke("summarize", "tiny", "--format", form).stdout
    assert (kept / "report.json").read_text(encoding="utf-8") == invoke("summarize", "tiny", "--json").stdout

    changed = json.loads(invoke("summarize", "tiny", "--json", "--meaningful", "0.5", "--alpha", "0.2").stdout)
    assert (0.5, 0.2) == (changed["rope"], changed["alpha"])
    assert 2 == len(changed["deviations"])
    loss = json.loads(invoke("summarize", "tiny", "--json", "--metric", "test_loss").stdout)
    assert ("test_loss", None, "test_loss") == (
        loss["metric"]["name"],
        loss["rope"],
        loss["answers"][0]["metric"]["name"],
    )
    assert ["metric changed from test_accuracy to test_loss by this summary, after results could be seen"] == [
        text for text in loss["deviations"] if text.startswith("metric")
    ]

    names = ("depth=1,normalization=none", "depth=2,normalization=batch")
    compared = json.loads(invoke("compare", "tiny", *names, "--json").stdout)
    assert names == (compared["first"], compared["second"])
    assert [2, 2] == [compared["metrics"][0][side]["n"] for side in ("first", "second")]
    assert all("collapsed" in reason for reason in compared["withheld"])  # two epochs on 60 images teach too little
    judged = compared["judged"]  # whether a run collapses depends on the CPU's rounding
    assert (6, "unstable" if compared["withheld"] else "undecided") == (judged["pairs"], judged["verdict"])
    assert bool(compared["withheld"]) == (judged["interval"] is None)
    same = invoke("compare", *(f"tiny/{name}" for name in names), "--json").stdout
    assert json.loads(same) == compared
    shown = invoke("compare", "tiny", *names).stdout
    assert f"B minus A, paired by seed, in study tiny\nA: {names[0]}\nB: {names[1]}\n" in shown

    runs = pd.read_csv(io.StringIO(invoke("export", "tiny").stdout))
    assert 8 == len(runs)
    assert {"model.depth", "model.normalization", "seed", "run_id", "test_accuracy", "test_brier_score"} <= set(runs)
    written = invoke("export", "tiny", "--epochs", "--output", str(tmp_path / "epochs.csv"))
    assert f"Wrote 16 rows to {tmp_path / 'epochs.csv'}." in written.stdout
    assert {1, 2} == set(pd.read_csv(tmp_path / "epochs.csv")["epoch"])

    for arguments, words in {
        ("summarize", "tiny", "--metric", "test_acuracy"): "did you mean 'test_accuracy'",
        ("compare", "tiny", names[0], "depth=2,normalization=bach"): f"did you mean '{names[1]}'",
        ("compare", "tiny", names[0]): "give a study and two of its variants, or two variants as STUDY/VARIANT",
        ("summarize", "tinny"): "near it: tiny",
        ("summarize", "tiny", "--alpha", "nan"): "--alpha",
        ("summarize", "tiny", "--output", "tiny.yaml/report"): "cannot write tiny.yaml/report",
        ("export", "tiny", "--output", "absent/runs.csv"): "cannot write absent/runs.csv",
    }.items():
        result = invoke(*arguments)
        assert 2 == result.exit_code, result.output
        assert words in result.stderr
        assert "Traceback" not in result.output


COPIED = re.compile(r"  \S*(/|`).*")
"""A line that is a path or a command alone."""


@pytest.mark.slow
@pytest.mark.parametrize("columns", [40, 80])
def test_no_command_prints_a_line_that_is_wider_than_the_terminal(
    columns: int, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    commands = {
        "study": ("study", "tiny.yaml", "--executor", "inline"),
        "plan": ("plan", "tiny.yaml", "--noise", "0.7"),
        "components": ("components", "tiny.yaml"),
        "status": ("status",),
        "summarize": ("summarize", "tiny"),
        "compare": ("compare", "tiny", "depth=1,normalization=none", "depth=2,normalization=batch"),
        "sync": ("sync",),
    }

    printed = {name: invoke(*words) for name, words in commands.items()}

    assert all(result.stdout for result in printed.values())
    assert {} == {name: wide for name, result in printed.items() if (wide := wider_than(columns, result))}


def wider_than(columns: int, result: Result) -> list[str]:
    """Return the lines that are wider and could be broken: not those of one word, or of what is there to be copied."""
    lines = (*result.stdout.splitlines(), *result.stderr.splitlines())
    return [line for line in lines if cells(line) > columns and " " in line.strip() and not COPIED.fullmatch(line)]


@pytest.mark.parametrize("mistake", ["no such file", "no such key", "seeds in words", "no server", "no such study"])
def test_a_mistake_is_told_within_the_width(run: Run, mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")

    result = run(*MISTAKES[mistake][0])

    assert "Error" in result.stderr or "error" in result.stderr
    assert [] == wider_than(40, result)


@pytest.mark.slow
def test_status_tells_how_far_each_study_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_alone(monkeypatch)
    study(run, "--seeds", "1")

    assert "tiny: finished; 4 done, 0 diverged, 0 failed, 0 to do of 4 runs" in run("status").stdout
    assert [4] == [each["done"] for each in json.loads(run("status", "tiny", "--json").stdout)]


@pytest.mark.parametrize(
    ("host", "pid", "seen_s_ago", "status"),
    [
        ("here", "own", 0, "running"),
        ("here", "ended", 0, "interrupted"),
        ("here", "own", 1_000, "interrupted"),
        ("elsewhere", "ended", 0, "running"),
        ("elsewhere", "ended", 1_000, "interrupted"),
    ],
)
def test_a_study_whose_command_is_gone_is_not_said_to_run(
    run: Run, store_uri: str, host: str, pid: str, seen_s_ago: int, status: str
) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    tracker = open_mlflow(store_uri)
    holder = Holder(
        host=socket.gethostname() if host == "here" else host,
        pid=os.getpid() if pid == "own" else ended.pid,
        since="2026-11-26T09:44:56+00:00",
        place="a place",
        seen_ms=round((time.time() - seen_s_ago) * 1000),
    )
    tracker.hold(tracker.open_study(make_plan(seeds=1)).study_run_id, holder)

    said = run("status").stdout

    assert f"quick: {status}; 0 done" in said
    assert (status == "interrupted") == ("The same command resumes it." in said)
    assert (status == "interrupted") == json.loads(run("status", "--json").stdout)[0]["is_interrupted"]


@pytest.mark.parametrize(
    ("is_interrupted", "status", "is_told"),
    [(False, "RUNNING", False), (True, "RUNNING", True), (False, "FAILED", True), (False, "KILLED", True)],
)
def test_status_tells_to_record_what_ended_unless_a_process_is_at_it(
    is_interrupted: bool, status: str, is_told: bool
) -> None:
    record = StudyRecord(study_run_id="a", experiment_id="1", plan=make_plan(), status=status)

    said = status_text([StudyStanding(record=record, runs=(), unrecorded=1, is_interrupted=is_interrupted)])

    assert "1 ended, not yet recorded in MLflow" in said
    assert is_told == ("sync quick" in said)
    assert is_told != ("they are being recorded" in said)


@pytest.mark.parametrize(
    ("command", "option", "shown"),
    [
        ("study", "--seeds", "1 to 10,000"),
        ("plan", "--epochs", "INTEGER>=1"),
        ("study", "--workers", "1..1024"),
        ("summarize", "--meaningful", "above 0"),
        ("summarize", "--alpha", "between 0 and 1"),
    ],
)
def test_help_shows_the_range_of_a_number(command: str, option: str, shown: str) -> None:
    words = " ".join(CliRunner().invoke(main, [command, "--help"]).output.split())

    assert shown in words.partition(f"{option} ")[2].partition(" --")[0]


def test_status_without_a_store_creates_none(run: Run, tmp_path: Path) -> None:
    result = run("status", "--tracking-uri", f"sqlite:///{tmp_path / 'absent.db'}")

    assert "No study is recorded here." in result.stdout
    assert not (tmp_path / "absent.db").exists()


def test_plan_prints_the_documented_json(run: Run) -> None:
    printed = json.loads(run("plan", "tiny.yaml", "--json").stdout)

    assert ("tiny", 8) == (printed["study"], printed["runs"])
    assert {"name", "levels", "parameters", "flops"} <= printed["variants"][0].keys()
    assert {"model.depth": 1, "model.normalization": "none"} == printed["variants"][0]["levels"]


def test_plan_says_what_each_question_finds_at_each_look(run: Run) -> None:
    arguments = ("plan", "tiny.yaml", "--json", "--seeds", "5,8")
    printed = [json.loads(run(*arguments, *noise).stdout)["power"] for noise in ((), ("--noise", "0.7"))]

    without, known = printed
    assert [5, 8, 5, 8] == [found["seeds"] for found in without]
    assert {"question", "metric", "seeds", "detectable_sd"} == without[0].keys()
    assert {"detectable", "seeds_for_meaningful"} == known[0].keys() - without[0].keys()
    assert known[0]["detectable"] == pytest.approx(0.007 * known[0]["detectable_sd"])


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "much"])
def test_plan_refuses_noise_that_is_none(run: Run, value: str) -> None:
    refused = run("plan", "tiny.yaml", "--noise", value)

    assert 2 == refused.exit_code
    assert "Invalid value for '--noise'" in refused.output


def test_plan_takes_noise_from_one_place_alone(run: Run) -> None:
    refused = run("plan", "tiny.yaml", "--noise", "0.7", "--noise-from", "other")

    assert 2 == refused.exit_code
    assert "give one of them" in refused.output


def test_plan_of_cifar10_needs_no_data(run: Run, tmp_path: Path) -> None:
    result = run(
        "plan", str(PROJECT / "studies" / "cifar10-depth-norm.yaml"), "--json", "--set", "training.batch_size=2"
    )

    parameters = [variant["parameters"] for variant in json.loads(result.stdout)["variants"]]
    assert [364_426, 528_522] == [parameters[0], parameters[2]]
    assert 4 * 20 == json.loads(result.stdout)["runs"]


def test_plan_shows_a_table(run: Run) -> None:
    result = run("plan", "tiny.yaml")

    assert "4 variants × 2 seeds = 8 runs" in result.stdout
    assert "depth=1,normalization=none (baseline)" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "variants"),
    [
        (("--depth", "1,2,3"), 6),
        (("--depth", "2"), 2),
        (("--normalization", "none,batch,layer", "--depth", "1"), 3),
        (("--depth", ""), 4),
    ],
)
def test_levels_can_be_given_on_the_command_line(run: Run, arguments: tuple[str, ...], variants: int) -> None:
    result = run("plan", "tiny.yaml", "--json", *arguments)

    assert variants == len(json.loads(result.stdout)["variants"])


@pytest.mark.parametrize(
    ("given", "looks"),
    [
        (("--seeds", "4"), [4]),
        (("--seeds", "3,5,8"), [3, 5, 8]),
        (("--seeds", "3, 5"), [3, 5]),
        (("--set", "seeds=4"), [4]),
        (("--set", "seeds={looks: [3, 5]}"), [3, 5]),
        (("--set", "seeds={first: 3, last: 12}"), [3, 5, 8, 12]),
    ],
)
@pytest.mark.parametrize("file", ["seeds: 2", "seeds: {looks: [2, 3]}", "seeds: {first: 2, last: 3}"])
def test_seeds_of_the_command_line_replace_those_of_the_file(
    run: Run, given: tuple[str, ...], looks: list[int], file: str, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_bytes(TINY.replace(b"seeds: 2", file.encode()))

    printed = json.loads(run("plan", "tiny.yaml", "--json", *given).stdout)

    assert (looks, looks[-1], 4 * looks[-1]) == (printed["looks"], printed["seeds"], printed["runs"])


def test_blank_options_are_as_if_not_given(run: Run) -> None:
    blank = [
        word for name in ("name", "seeds", "depth", "normalization", "epochs", "set") for word in (f"--{name}", "")
    ]

    result = run("plan", "tiny.yaml", "--json", *blank)

    assert ("tiny", 8) == tuple(json.loads(result.stdout)[key] for key in ("study", "runs"))


def test_several_changes_may_stand_in_one_set(run: Run) -> None:
    printed = json.loads(run("plan", "tiny.yaml", "--json", "--set", "training.epochs=1;seeds=3").stdout)

    assert ("tiny+training.epochs=1", 12) == (printed["study"], printed["runs"])


def test_define_writes_a_study_that_plan_takes(run: Run, tmp_path: Path) -> None:
    written = run("define", "--depth", "1,2", "--normalization", "none,batch", "--seeds", "3", "--output", "mine.yaml")

    assert 0 == written.exit_code, written.output
    assert 4 * 3 == len(load_study(tmp_path / "mine.yaml").variants) * 3
    assert 12 == json.loads(run("plan", "mine.yaml", "--json").stdout)["runs"]


def test_define_writes_planned_looks(run: Run, tmp_path: Path) -> None:
    run("define", "--seeds", "3,5,8", "--output", "mine.yaml")

    assert (3, 5, 8) == load_study(tmp_path / "mine.yaml").spec.looks


@pytest.mark.parametrize(
    ("output", "root", "written"),
    [
        ("mine.yaml", "photos", "photos"),
        ("studies/mine.yaml", "photos", "../photos"),
        ("studies/mine.yaml", "studies/photos.tar.gz", "photos.tar.gz"),
        ("studies/mine.yaml", "/data/photos", "/data/photos"),
        ("studies/mine.yaml", "~/photos", "~/photos"),
    ],
)
def test_a_defined_file_names_the_data_as_seen_from_itself(run: Run, output: str, root: str, written: str) -> None:
    Path("studies").mkdir()

    result = run("define", "--data", "images", "--root", root, "--output", output)

    assert 0 == result.exit_code, result.output
    assert written == load_study(Path(output)).spec.settings().data.root


def test_define_names_code_as_seen_from_the_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "studies").mkdir()
    (tmp_path / "code" / "own.py").write_text("def train(width=3, kind='a'):\n    return {'rmse': 1.0}\n")
    said = run("define", "--training", "code/own.py:train", "--output", "studies/mine.yaml")

    assert "Wrote studies/mine.yaml." in said.stdout
    assert "  name: '../code/own.py:train'\n  width: 3\n" in (tmp_path / "studies" / "mine.yaml").read_text()


def test_define_does_not_write_over_a_file(run: Run, tmp_path: Path) -> None:
    result = run("define", "--output", "tiny.yaml")

    assert 2 == result.exit_code
    assert "--force" in result.stderr


MISTAKES = {
    "no such file": (("study", "absent.yaml"), "cannot read the study file absent.yaml"),
    "no such key": (("study", "tiny.yaml", "--set", "training.epoch=1"), "did you mean 'epochs'?"),
    "no equals sign": (("study", "tiny.yaml", "--set", "training.epochs"), "must be PATH=VALUE"),
    "no such level": (("plan", "tiny.yaml", "--normalization", "none,bach"), "'bach'"),
    "unclosed bracket": (("plan", "tiny.yaml", "--depth", "1,[2"), "--depth"),
    "no such device": (("study", "tiny.yaml", "--device", "cuda:99"), "there is no device 'cuda:99' here"),
    "no number to fuse": (("study", "tiny.yaml", "--fuse", "0"), "'0' is neither auto nor a number from 1 to 1024"),
    "no words to fuse": (("study", "tiny.yaml", "--fuse", "all"), "'all' is neither auto nor a number"),
    "seeds in words": (
        ("study", "tiny.yaml", "--seeds", "five"),
        "'--seeds': 'five' is neither a number of seeds, such as 5, nor planned looks, such as 5,8,12,20, nor seed "
        "indices, as [0,1,42].",
    ),
    "a look that is missing": (("plan", "tiny.yaml", "--seeds", "5,"), "'5,' is neither a number of seeds"),
    "a negative number of seeds": (("plan", "tiny.yaml", "--seeds", "-1"), "'-1' is neither a number of seeds"),
    "a metric without direction": (
        ("define", "--training", "own.py:train", "--metric", "rmse"),
        "write NAME:maximize or NAME:minimize, not 'rmse' @ --metric",
    ),
    "no code": (("define", "--training", "train"), "@ --training"),
    "depth of one's own": (
        ("define", "--model", "own.py:build", "--depth", "2,3"),
        "--depth is of the built-in CNN; edit the file instead",
    ),
    "data of one's own alone": (
        ("define", "--data", "own.py:load"),
        "give --model or --training with data of your own",
    ),
    "half a seed": (("define", "--seeds", "2.5"), "'2.5' is neither a number of seeds"),
    "no seeds": (("plan", "tiny.yaml", "--seeds", "0"), "must be a whole number from 1 to 10000, not 0 @ seeds"),
    "too many seeds": (("define", "--seeds", "10001"), "must be a whole number from 1 to 10000, not 10001 @ seeds"),
    "looks that fall": (
        ("study", "tiny.yaml", "--seeds", "8,5"),
        "looks must rise, and 5 stands after 8 @ seeds.looks",
    ),
    "looks that begin at 1": (
        ("define", "--seeds", "1,5"),
        "must be a whole number from 2 to 10000, not 1 @ seeds.looks[0]",
    ),
    "neither on nor off": (("study", "tiny.yaml", "--cudnn-benchmark", "yes"), "'yes' is not one of 'off', 'on'"),
    "no such precision here": (
        ("study", "tiny.yaml", "--set", "training.precision=tf32", "--device", "cpu"),
        "cpu does not compute in tf32; it does in fp32, bf16 @ training.precision",
    ),
    "no such precision in a plan": (
        ("plan", "tiny.yaml", "--set", "training.precision=tf32", "--device", "cpu"),
        "cpu does not compute in tf32",
    ),
    "no such study": (("summarize", "nobody"), "has no study 'nobody'"),
    "no such study in status": (("status", "nobody"), "has no study 'nobody'"),
    "no such data": (
        ("study", "tiny.yaml", "--set", "data={name: images, root: absent, validation: none}"),
        "absent",
    ),
    "no server": (("status", "--tracking-uri", "http://127.0.0.1:9"), "127.0.0.1:9"),
    "a depth out of range": (("define", "--depth", "9,10"), "depth"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence_and_status_2(run: Run, mistake: str, tmp_path: Path) -> None:
    arguments, words = MISTAKES[mistake]

    result = run(*arguments)

    assert 2 == result.exit_code, result.output
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_wrong_study_file_creates_nothing(run: Run, tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.rglob("*"))

    run("study", "tiny.yaml", "--set", "model.depth=9")

    assert before == sorted(path.name for path in tmp_path.rglob("*"))


STEERING = "evil\x1b]0;owned\x07\x9b2J\u202e"


@pytest.mark.parametrize("words", ["status", "status evil", "summarize evil", "compare evil a b", "sync evil"])
def test_what_an_error_says_of_a_store_is_text(words: str, run: Run, store_uri: str) -> None:
    client = MlflowClient(store_uri)
    client.create_run("0", tags={"ablation.kind": "study", "ablation.study": STEERING})

    result = run(*words.split())

    assert 2 == result.exit_code
    assert "evil ]0;owned  2J" in result.stderr or repr(STEERING) in result.stderr
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*result.output}


def test_json_of_a_comparison_is_the_same_with_its_steering_characters_escaped() -> None:
    text = json.dumps({STEERING: "für\U000e0041"}, ensure_ascii=False, indent=1)

    assert {STEERING: "für\U000e0041"} == json.loads(plain_json(text))
    assert "für" in plain_json(text)
    assert not {*"\x9b\u202e\U000e0041"} & {*plain_json(text)}

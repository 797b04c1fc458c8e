"""What is shown of a study while it runs: where it stands, and nothing that would be a result before its look."""

import errno
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SPARED
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ablation.api.live_view import Room, ending_text, standing_lines
from ablation.api.notebook import NotebookView
from ablation.api.progress import _Clock, _event_lines, _LiveView, _show_in
from ablation.coordinator.progress import Progress, VariantRuns
from ablation.output import cells
from ablation.records import Epoch, EpochMetrics, Outcome, PlannedRun, ReportedEpoch, RunResult
from ablation.study import parse_study

OWN = b"""
name: own
training: {name: "t.py:train", x: 1, epochs: 5}
factors: {training.x: [1, 2]}
metric: {name: score, direction: maximize}
"""
ESCAPE = "\x1b"
COLOUR = re.compile(r"\x1b\[[0-9;]+m")
OTHER_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")


def planned(variant: str, seed: int = 0) -> PlannedRun:
    return PlannedRun(identity=f"{variant}/{seed}", variant=variant, seed=seed)


def ended(run: PlannedRun, outcome: Outcome, *, error: str | None = None, score: float = 0.5) -> RunResult:
    metrics = {"score": score, "total_seconds": 2.0} if outcome is Outcome.DONE else {}
    return RunResult(identity=run.identity, outcome=outcome, metrics=metrics, epochs=1, error=error)


def of_variants(count: int, *, under_way: int = 0) -> Progress:
    """Return a study of so many variants, whose last ones are under way."""
    names = [f"depth={index},normalization=batch" for index in range(count)]
    return Progress(
        planned=5 * count,
        ended={Outcome.DONE: 2 * count},
        variants=tuple(VariantRuns(variant=name, asked=5, ended=2) for name in names),
        running=tuple((planned(name), None) for name in names[count - under_way :]),
        look="look 1 of 3: 3 open, 1 decided",
    )


def lines_of(progress: Progress, *, columns: int = 80, rows: int = 23, ending: str | None = None) -> list[str]:
    room = Room(columns=columns, rows=rows)
    return standing_lines(progress, room, left=30.0, epoch_text=lambda epoch: f"epoch {epoch.epoch}", ending=ending)


LOSSES = st.fixed_dictionaries({"loss": st.floats()}, optional={"accuracy": st.floats(), "macro_f1": st.floats()})
EPOCHS: st.SearchStrategy[Epoch | None] = st.one_of(
    st.none(),
    st.builds(EpochMetrics, train=LOSSES, sample=LOSSES, heldout=LOSSES),
    st.builds(
        ReportedEpoch,
        epoch=st.integers(1, 999),
        metrics=st.dictionaries(st.text("ab你_", min_size=1), st.floats(allow_nan=False), max_size=3),
        timestamp_ms=st.just(1),
    ),
)
NAMES = st.text("ab你=,._é", min_size=1, max_size=90)


@given(
    variants=st.lists(st.tuples(NAMES, st.integers(1, 99), st.integers(0, 99)), max_size=40),
    running=st.lists(st.tuples(NAMES, EPOCHS), max_size=40),
    columns=st.integers(40, 160),
    rows=st.integers(16, 60),
    is_ending=st.booleans(),
)
def test_the_view_fits_into_the_terminal(
    variants: list[tuple[str, int, int]],
    running: list[tuple[str, Epoch | None]],
    columns: int,
    rows: int,
    is_ending: bool,
) -> None:
    progress = Progress(
        planned=99,
        ended={Outcome.DONE: 40},
        variants=tuple(VariantRuns(variant=name, asked=asked, ended=done) for name, asked, done in variants),
        running=tuple((planned(name), epoch) for name, epoch in running),
        look="look 1 of 3: 3 open, 1 decided",
        budget="budget: 0.5 of 8.3 h; next look: up to 8 runs, about 33 min",
    )

    lines = lines_of(progress, columns=columns, rows=rows, ending=ending_text(progress, 3.0) if is_ending else None)

    assert all(cells(line) <= columns for line in lines)
    assert len(lines) <= rows


def test_each_variant_has_a_line_with_its_runs() -> None:
    lines = lines_of(of_variants(2, under_way=1))

    assert [
        "████░░░░░░ 4 done, 0 diverged, 0 failed of 10 runs, about 30 s left",
        "look 1 of 3: 3 open, 1 decided",
        "  depth=0,normalization=batch  2/5  ████░░░░░░",
        "  depth=1,normalization=batch  2/5  ████░░░░░░",
        "  depth=1,normalization=batch/seed-0  starting",
    ] == lines


def test_a_study_without_a_worker_says_so_as_long_as_it_waits() -> None:
    lines = lines_of(
        replace(of_variants(1), waiting="there is no worker now that is fit and free; the study waits for one")
    )

    assert "there is no worker now that is fit and free; the study waits for one" == lines[2]


def test_of_many_variants_those_under_way_come_first_and_the_rest_is_counted() -> None:
    lines = lines_of(of_variants(50, under_way=3))

    assert ["depth=47,", "depth=48,", "depth=49,"] == [line.split("normalization")[0].strip() for line in lines[2:5]]
    assert sum(" 2/5 " in line for line in lines) + int(re.findall(r"and (\d+) more", "\n".join(lines))[0]) == 50


def test_what_runs_came_to_changes_nothing_in_the_view() -> None:
    progress = of_variants(4, under_way=2)
    run = planned("depth=0,normalization=batch")
    views = {
        tuple(lines_of(replace(progress, latest=(run, ended(run, Outcome.DONE, score=score))))) for score in (0.1, 0.9)
    }

    assert {tuple(lines_of(progress))} == views


def test_where_an_end_was_asked_for_the_view_says_what_is_waited_for_instead_of_the_time_left() -> None:
    progress = of_variants(4, under_way=2)

    text = "\n".join(lines_of(progress, columns=200, ending=ending_text(progress, 3.2)))

    assert "Ending (3 s): waiting for 2 runs under way to keep a checkpoint, and for MLflow to record it." in text
    assert "Ctrl-C ends at once." in text
    assert "left" not in text


def test_a_terminal_of_other_characters_gets_a_bar_of_ascii() -> None:
    room = Room(columns=80, rows=23, is_ascii=True)
    lines = standing_lines(of_variants(2), room, left=None, epoch_text=lambda epoch: f"epoch {epoch.epoch}")

    assert "\n".join(lines).isascii()
    assert "####......" in lines[0]


def events(progress: Progress, columns: int = 80, left: str = "") -> list[str]:
    return list(_event_lines(progress, columns, metric="score", left=left))


def test_a_failed_run_is_a_line_with_the_last_line_of_its_error_cut_at_the_width() -> None:
    run = planned("x=1")
    error = "Traceback (most recent call last):\n  File 't.py'\nValueError: could not " + "allocate " * 20
    progress = Progress(planned=8, latest=(run, ended(run, Outcome.FAILED, error=error)), note="a note")

    first, note = events(progress)

    assert first.startswith("[0/8] x=1/seed-0: failed: ValueError: could not allocate")
    assert first.endswith("…")
    assert 80 == cells(first)
    assert "[0/8] a note" == note


def test_the_time_left_stands_behind_a_run_where_there_is_room() -> None:
    run = planned("x=1")
    progress = Progress(planned=8, latest=(run, ended(run, Outcome.DONE)))

    assert ["[0/8] x=1/seed-0: score 0.5000 in 2 s, about 9 s left"] == events(progress, left=", about 9 s left")
    assert ["[0/8] x=1/seed-0: score 0.5000 in 2 s"] == events(progress, columns=45, left=", about 9 s left")


def test_a_notebook_shows_the_last_events_above_the_view() -> None:
    shown: list[Mapping[str, str]] = []

    class Display:
        def update(self, bundle: Mapping[str, str], *, raw: bool) -> None:
            assert raw
            shown.append(bundle)

    view = NotebookView(lambda *_, **__: Display())
    run = planned("depth=1,normalization=batch")
    clock = _Clock(study=parse_study(OWN, source="own.yaml"))

    _show_in(view, replace(of_variants(2), latest=(run, ended(run, Outcome.DONE))), clock)

    text = shown[-1]["text/plain"].splitlines()
    assert "[4/10] depth=1,normalization=batch/seed-0: score 0.5000 in 2 s" == text[0]
    assert "  depth=1,normalization=batch  2/5  ████░░░░░░" in text


STEPS = """
from ablation.api.progress import follow
from ablation.coordinator.progress import Progress, VariantRuns
from ablation.records import Outcome, PlannedRun, RunResult
from ablation.study import parse_study

RUN = PlannedRun(identity="0", variant="a-variant-with-quite-a-long-name=1,depth=2", seed=0)
RESULT = RunResult(identity="0", outcome=Outcome.DONE, metrics={"score": 0.5, "total_seconds": 2.0}, epochs=1)
VARIANTS = (VariantRuns(variant=RUN.variant, asked=4, ended=1),)

def steps():
    for latest in (None, (RUN, RESULT), None):
        yield Progress(planned=8, ended={Outcome.DONE: 1}, variants=VARIANTS, running=((RUN, None),), latest=latest)

follow(steps(), study=parse_study(OWN, source="own.yaml"), is_quiet=False)
"""


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "ABLATION_"))}
    return {**kept, "TERM": "xterm-256color", "LINES": "24", "COLUMNS": "80", "PYTHONPATH": SPARED, **changes}


def _heed_interrupts() -> None:
    """Have a process end at Ctrl-C by default: what was started in the background has learned to ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def on_a_terminal(command: list[str], folder: Path, **changes: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Start a process whose output is a terminal, and yield it with what its terminal can be read from."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment(**changes),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    ) as process:
        os.close(slave)
        try:
            yield process, master
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # else it would be waited for
            raise
    os.close(master)


def read_until(master: int, words: str, *, seconds: float = 120.0) -> str:
    """Return what a terminal shows until some words or its end."""
    shown, deadline = b"", time.monotonic() + seconds
    while words.encode() not in shown and time.monotonic() < deadline:
        if not select.select([master], [], [], 0.5)[0]:
            continue
        try:
            shown += os.read(master, 65_536)
        except OSError as error:
            if error.errno != errno.EIO:  # which says that it has ended
                raise
            break
    return shown.decode()


def script(folder: Path) -> list[str]:
    (folder / "steps.py").write_text(f"OWN = {OWN!r}\n{STEPS}")
    return [sys.executable, str(folder / "steps.py")]


def shown_on_a_terminal(folder: Path, **changes: str) -> str:
    with on_a_terminal(script(folder), folder, **changes) as (_, master):
        return read_until(master, "\0")


def drawn_lines(shown: str) -> list[str]:
    return re.split(r"[\r\n]+", OTHER_ESCAPES.sub("", COLOUR.sub("", shown)))


def test_a_terminal_shows_the_view_and_the_events_above_it(tmp_path: Path) -> None:
    shown = shown_on_a_terminal(tmp_path)

    assert "  1/4  ██░░░░░░░░" in shown
    assert "[1/8] a-variant-with-quite-a-long-name=1,depth=2/seed-0: score 0.5000 in 2 s" in shown
    assert ESCAPE in shown


def test_no_color_leaves_the_view_without_colours(tmp_path: Path) -> None:
    shown = shown_on_a_terminal(tmp_path, NO_COLOR="1")

    assert "██░░░░░░░░" in shown
    assert [] == COLOUR.findall(shown)


def test_a_narrow_terminal_is_not_written_over(tmp_path: Path) -> None:
    shown = shown_on_a_terminal(tmp_path, COLUMNS="40")

    lines = drawn_lines(shown)
    assert any("█░░░░░░░░░ 1 done" in line for line in lines)
    assert all(cells(line) <= 40 for line in lines if "a-variant-with-quite-a-long-name=1,depth=2/seed-0:" not in line)


def test_a_dumb_terminal_gets_plain_lines(tmp_path: Path) -> None:
    shown = shown_on_a_terminal(tmp_path, TERM="dumb")

    assert ["[1/8] a-variant-with-quite-a-long-name=1,depth=2/seed-0: score 0.5000 in 2 s"] == [
        line for line in shown.splitlines() if line
    ]


def test_what_is_no_terminal_gets_plain_lines(tmp_path: Path) -> None:
    done = subprocess.run(script(tmp_path), env=environment(), capture_output=True, text=True, check=True)

    assert "[1/8] a-variant-with-quite-a-long-name=1,depth=2/seed-0: score 0.5000 in 2 s\n" == done.stderr


TRAIN = """
import time

def train(settings, seed, report):
    for epoch in range(1, 600):
        report(score=0.5)
        time.sleep(0.1)
    return {"score": 0.5}
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_says_in_the_view_what_it_waits_for(
    number: signal.Signals, empty_store: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.yaml").write_bytes(OWN)
    (tmp_path / "t.py").write_text(TRAIN)
    store = tmp_path / "mlflow.db"
    store.write_bytes(empty_store.read_bytes())
    command = [sys.executable, "-m", "ablation", "study", "own.yaml", "--executor", "processes", "--workers", "1"]
    with on_a_terminal(command, tmp_path, MLFLOW_TRACKING_URI=f"sqlite:///{store}") as (process, master):
        assert "epoch " in read_until(master, "epoch ")

        process.send_signal(number)
        shown = read_until(master, "Resume with the same command:")
        shown += read_until(master, "\0")

    assert 128 + number == process.returncode
    lines = drawn_lines(shown)
    ending = next(index for index, line in enumerate(lines) if "Ending (" in line)
    assert "waiting for 1 run under way to keep a checkpoint" in lines[ending]
    assert "Ctrl-C ends at once." in "".join(lines[ending : ending + 2])
    assert "about" not in lines[ending - 1]
    assert "Once more ends at once" not in shown
    assert "-m ablation study own.yaml --executor processes --workers 1" in shown


def test_the_terminals_own_echo_of_ctrl_c_fits_behind_every_line_of_the_view() -> None:
    clock = _Clock(study=parse_study(OWN, source="own.yaml"))
    view = _LiveView(Console(width=40, file=io.StringIO(), force_terminal=True), clock)

    view.show(of_variants(3, under_way=2))

    assert all(cells(f"{line}^C") <= 40 for line in view.drawn().plain.splitlines())

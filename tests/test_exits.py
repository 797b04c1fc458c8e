"""What ends a process ends one run, where user code raises it; what ends early as a signal asked is no result."""

import os
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench import Bench
from click.testing import CliRunner
from jobs import Ended, fail, handler_name, take_the_handlers

from ablation import cli
from ablation.code import CodeFolders, running
from ablation.errors import AblationError, CodeInvalid, TuningFailed, VariantFails
from ablation.executors import Executor, InlineExecutor, JobExited, ProcessExecutor, make_executor
from ablation.records import Outcome, RecordedRun
from ablation.stopping import Preempted, Stopping, stopping
from ablation.study import Study, load_study

pytestmark = pytest.mark.usefixtures("hearing_signals")

FILE = """
name: exits
training: {name: "t.py:train", x: 1}
factors: {training.x: [1, 2]}
metric: {name: score, direction: maximize, meaningful: 0.01}
seeds: 2
"""
MODEL = """
name: exits
data: {name: digits, limit: 60, validation: 0.2}
model: {name: "t.py:build", odd: false}
training: {epochs: 3, batch_size: 16}
factors: {model.odd: [false, true]}
seeds: 1
"""
NET = """
import sys
from torch import nn

class Net(nn.Module):
    def __init__(self, odd):
        super().__init__()
        self.layers, self.odd, self.calls = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)), odd, 0

    def forward(self, inputs):
        self.calls += 1
        if self.odd and self.calls > 9:
            EXIT
        return self.layers(inputs)

def build(odd):
    return Net(odd)
"""
EXITS = [
    "sys.exit(0)",
    "sys.exit('no')",
    "raise SystemExit",
    "raise GeneratorExit",
    "raise Ended",
    "raise KeyboardInterrupt",
]
ENDED = "class Ended(BaseException):\n    pass\n\n"


@pytest.fixture(params=["inline", "processes"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with make_executor(request.param, devices=("cpu",), workers=1, threads=1) as made:
        yield made


def study(folder: Path, body: str, *, text: str = FILE) -> Study:
    code = f"import os, signal, sys, time\n\n{ENDED}def train(settings, seed, report):\n"
    (folder / "t.py").write_text(code + textwrap.indent(textwrap.dedent(body), "    ") if text is FILE else body)
    (folder / "s.yaml").write_text(text)
    return load_study(folder / "s.yaml")


def recorded(bench: Bench) -> tuple[RecordedRun, ...]:
    record = bench.tracker.find_study("exits")
    assert record is not None
    return bench.tracker.recorded_runs(record)


@pytest.mark.slow
@pytest.mark.parametrize("exits", EXITS)
def test_a_training_function_that_ends_the_process_ends_its_own_runs_alone(
    exits: str, bench: Bench, tmp_path: Path
) -> None:
    body = f'if settings["training"]["x"] == 2:\n    {exits}\nreturn {{"score": 0.5}}'
    with stopping.listening():  # as the command does: then KeyboardInterrupt is the function's own
        outcome = bench.run(study(tmp_path, body))

    assert {Outcome.DONE: 2, Outcome.FAILED: 2} == outcome.ended
    for run in recorded(bench):
        if run.outcome is Outcome.FAILED:
            assert "code" == run.failure
            assert exits in str(run.error)


def test_an_interrupt_of_a_process_where_nobody_listens_goes_through(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench.run(study(tmp_path, "raise KeyboardInterrupt"))

    assert {None} == {run.outcome for run in recorded(bench)}


@pytest.mark.parametrize("exits", ["sys.exit(0)", "raise GeneratorExit"])
def test_a_model_that_ends_the_process_while_it_is_trained_ends_its_own_run_alone(
    exits: str, bench: Bench, tmp_path: Path
) -> None:
    outcome = bench.run(study(tmp_path, NET.replace("EXIT", exits), text=MODEL))

    assert {Outcome.DONE: 1, Outcome.FAILED: 1} == outcome.ended
    (failed,) = [run for run in recorded(bench) if run.outcome is Outcome.FAILED]
    assert ("odd=true", "code") == (failed.planned.variant, failed.failure)
    assert exits in str(failed.error)


@pytest.mark.parametrize(
    "body",
    [
        NET.replace("self.calls > 9", "True").replace("EXIT", "sys.exit(0)"),
        NET.replace("    return Net(odd)", "    sys.exit(0)"),
        f"{NET}\nsys.exit(0)",
        f"{NET}\nraise KeyboardInterrupt",
    ],
    ids=["forward", "build", "import", "interrupt"],
)
def test_a_model_that_ends_the_process_at_once_is_refused_by_name(body: str, bench: Bench, tmp_path: Path) -> None:
    with stopping.listening(), pytest.raises((VariantFails, CodeInvalid), match=r"t\.py:build raised "):
        bench.run(study(tmp_path, body, text=MODEL))

    assert () == bench.tracker.study_names()


def test_a_loss_that_ends_the_process_is_refused_by_name(bench: Bench, tmp_path: Path) -> None:
    text = MODEL.replace("epochs: 3", 'epochs: 3, loss: "t.py:loss"')
    with pytest.raises(VariantFails, match=r"t\.py:loss raised SystemExit"):
        bench.run(study(tmp_path, f"{NET}\ndef loss(logits, labels):\n    sys.exit(0)\n", text=text))


def test_data_that_end_the_process_are_refused_by_name(bench: Bench, tmp_path: Path) -> None:
    text = MODEL.replace("name: digits, limit: 60", 'name: "t.py:load"')
    body = f"{NET}\nclass Data:\n    def __array__(self, *_, **__):\n        sys.exit(0)\n\ndef load():\n    return "
    for returned in ("sys.exit(0)", "(Data(), Data()), (Data(), Data())"):
        with pytest.raises(AblationError, match=r"t\.py:load"):
            bench.run(study(tmp_path, f"{body}{returned}\n", text=text))


def test_a_replacement_that_ends_the_process_is_refused(bench: Bench, tmp_path: Path) -> None:
    text = MODEL.replace("factors: {model.odd: [false, true]}", 'factors: {part: {replace: {"layers.1": "t.py:new"}}}')
    with pytest.raises(AblationError, match=r"the replacement of 'layers\.1' could not be built: SystemExit"):
        bench.run(study(tmp_path, f"{NET}\ndef new(old):\n    sys.exit(0)\n", text=text))


def test_a_tuned_variant_that_ends_the_process_has_no_result_and_is_named(bench: Bench, tmp_path: Path) -> None:
    text = f"{MODEL}tune: {{training.learning_rate: {{log: [1e-4, 1e-2]}}, trials: 2}}\n"
    with pytest.raises(TuningFailed, match="no trial of tuning variant odd=true"):
        bench.run(study(tmp_path, NET.replace("EXIT", "sys.exit(0)"), text=text))


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit(), Ended("now"), KeyboardInterrupt()], ids=repr)
def test_a_future_never_raises_what_would_end_whoever_asks(error: BaseException, executor: Executor) -> None:
    with stopping.listening():
        raised = executor.submit(fail, error).exception(timeout=60)

    assert isinstance(raised, JobExited)
    assert str(raised).startswith(type(error).__name__)
    assert 4 == executor.submit(abs, -4).result(timeout=60)


ONCE = """
if not os.path.exists(MARK):
    open(MARK, "w").close()
    ENDING
return {"score": 0.5}
"""
ENDINGS = {
    "it returns": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.1); return {'score': 99.0}",
    "it has a handler of its own": (
        "signal.signal(signal.SIGTERM, lambda *_: None); os.kill(os.getpid(), signal.SIGTERM); return {'score': 99.0}"
    ),
    "its handler exits": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)"
    ),
    "it fails for it": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.1); raise RuntimeError('a child died')",
    "it reports on": (
        "os.kill(os.getpid(), signal.SIGTERM)\n    for _ in range(9):\n        try:\n            report(score=99.0)\n"
        "        except Exception:\n            pass\n    return {'score': 99.0}"
    ),
}


def preempted_once(folder: Path, ending: str) -> Study:
    return study(folder, ONCE.replace("MARK", repr(str(folder / "mark"))).replace("ENDING", ENDINGS[ending]))


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_that_ends_after_a_signal_asked_is_no_result_and_begins_anew(
    ending: str, bench: Bench, tmp_path: Path
) -> None:
    chosen = preempted_once(tmp_path, ending)
    with stopping.listening(), pytest.raises(KeyboardInterrupt):
        bench.run(chosen)
    assert {None} == {run.outcome for run in recorded(bench)}

    outcome = bench.run(chosen)

    assert {Outcome.DONE: 4} == outcome.ended
    assert {0.5} == {run.metrics["score"] for run in recorded(bench)}


@pytest.fixture(scope="module")
def workers() -> Iterator[Executor]:
    """A worker, and after it was asked to end another."""
    with ProcessExecutor(slots=("cpu",)) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_worker_that_ends_a_run_after_a_signal_asked_has_no_result_of_it(
    ending: str, bench: Bench, workers: Executor, tmp_path: Path
) -> None:
    bench.executor = workers
    outcome = bench.run(preempted_once(tmp_path, ending))

    assert {Outcome.DONE: 4} == outcome.ended
    assert {0.5} == {run.metrics["score"] for run in recorded(bench)}
    assert 1 == sum("its worker was asked to end" in note or "SIGTERM" in note for note in bench.notes)


def test_handlers_that_a_job_sets_last_as_long_as_it_does() -> None:
    with stopping.listening():
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        InlineExecutor(device="cpu").submit(take_the_handlers).result()

        assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


def test_handlers_that_code_sets_when_it_is_imported_do_not_make_this_process_deaf() -> None:
    with stopping.listening():
        with running("own.py:f", path="model.name"):
            take_the_handlers()

        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_a_workers_handlers_are_its_own_again_after_each_job() -> None:
    with ProcessExecutor(slots=("cpu",)) as executor:
        before = repr(executor.submit(handler_name).result(timeout=60))
        executor.submit(take_the_handlers).result(timeout=60)

        assert before == repr(executor.submit(handler_name).result(timeout=60))


def test_the_first_signal_is_the_first_also_where_it_was_noted_before_its_handler_ran() -> None:
    mine = Stopping()
    with mine.listening(), mine.patiently(), mine.hearing():
        mine.ask(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

        assert mine.is_asked  # and this process lives


def test_what_a_forked_child_is_asked_is_not_asked_of_its_parent() -> None:
    def fork_and_ask() -> bool:
        signal.signal(signal.SIGTERM, lambda *_: None)
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        os.waitpid(child, 0)
        return stopping.is_asked

    with stopping.listening():
        assert InlineExecutor(device="cpu").submit(fork_and_ask).result() is False


def test_what_arrives_before_a_job_or_after_it_is_not_its() -> None:
    with stopping.listening():
        future = InlineExecutor(device="cpu").submit(lambda: stopping.is_asked)

        assert future.result() is False
        assert -1 == signal.set_wakeup_fd(-1)


def test_user_code_that_swallows_an_interrupt_interrupts_all_the_same() -> None:
    def swallow() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise SystemExit(0) from None

    with stopping.listening(), pytest.raises(KeyboardInterrupt), running("own.py:f", path="model.name"):
        swallow()


def test_code_that_ends_the_process_when_it_is_imported_is_refused_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("class Ended(BaseException):\n    pass\nraise Ended('here')\n")
    with pytest.raises(CodeInvalid, match=r"(?s)own\.py:f raised Ended when it was imported.*here"):
        CodeFolders(folders=(tmp_path,)).load("own.py:f", path="model.name")


def test_a_preempted_job_is_carried_as_that(executor: Executor) -> None:
    with stopping.listening():
        assert isinstance(executor.submit(fail, Preempted()).exception(timeout=60), Preempted)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--executor", "inline"], ["--executor", "processes", "--workers", "1"]])
def test_a_study_with_an_exit_in_it_has_all_its_runs_and_status_1(
    options: list[str], store_uri: str, tmp_path: Path
) -> None:
    study(tmp_path, 'if settings["training"]["x"] == 2:\n    sys.exit(0)\nreturn {"score": 0.5 + seed % 97 / 1e4}')
    arguments: list[Any] = ["study", str(tmp_path / "s.yaml"), "--tracking-uri", store_uri]
    result = CliRunner().invoke(cli.main, [*arguments, "--state-dir", str(tmp_path / "state"), *options])

    assert 1 == result.exit_code
    assert "Traceback" not in result.stderr
    status = CliRunner().invoke(cli.main, ["status", "exits", "--tracking-uri", store_uri])
    assert 2 == status.stdout.count("failed: SystemExit: 0")

"""A signal ends work in good order, several at once are one, and a second one later ends at once."""

import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import PROJECT

from ablation import stopping as module
from ablation.executors import InlineExecutor
from ablation.stopping import Preempted, Stopping, stopping

pytestmark = pytest.mark.usefixtures("hearing_signals")


@pytest.fixture
def mine() -> Stopping:
    return Stopping()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_interruption_and_tells_which_it_was(mine: Stopping, number: signal.Signals) -> None:
    with mine.listening():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)

        assert mine.is_asked
        assert number == mine.signal
    assert not mine.is_asked


def test_signals_that_come_together_are_one(mine: Stopping) -> None:
    with mine.listening():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)

        assert signal.SIGHUP == mine.signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_stays_so_as_under_nohup(mine: Stopping, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with mine.listening():
            signal.raise_signal(number)

            assert not mine.is_asked
    finally:
        signal.signal(number, before)


def test_what_a_view_shows_is_not_said_beside_it(mine: Stopping) -> None:
    said = []
    with mine.listening(on_asked=lambda: said.append("ending")):
        with mine.shown(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

        assert [] == said
        assert mine.seconds_asked is not None
    assert mine.seconds_asked is None


def test_what_runs_patiently_comes_to_its_end(mine: Stopping) -> None:
    with mine.listening(), mine.patiently():
        signal.raise_signal(signal.SIGTERM)

        assert mine.is_asked


def test_what_does_not_come_to_its_end_is_interrupted_after_the_grace(
    mine: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.05)
    with mine.listening(), pytest.raises(KeyboardInterrupt), mine.patiently():  # noqa: PT012 - it is raised in between
        signal.raise_signal(signal.SIGTERM)
        time.sleep(10)


def test_whoever_listens_is_told_once(mine: Stopping) -> None:
    told: list[bool] = []
    with mine.listening(on_asked=lambda: told.append(True)), mine.patiently():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    assert [True] == told


def test_a_second_signal_later_ends_at_once() -> None:
    code = (
        "import signal, time\n"
        "from ablation.stopping import stopping\n"
        "with stopping.listening():\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        time.sleep(1.1)\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    print('never')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, check=False
    )

    assert (128 + signal.SIGINT, b"") == (ended.returncode, ended.stdout)


def test_what_is_forked_has_handlers_of_its_own(mine: Stopping) -> None:
    with mine.listening():
        child = os.fork()
        if child == 0:
            os._exit(0 if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL else 1)
        _, status = os.waitpid(child, 0)

    assert 0 == status


def test_a_job_in_this_process_is_let_come_to_its_end() -> None:
    def job() -> str:
        signal.raise_signal(signal.SIGTERM)
        if stopping.is_asked:
            raise Preempted
        return "never"

    with stopping.listening():
        future = InlineExecutor(device="cpu").submit(job)

    assert isinstance(future.exception(), Preempted)

"""Ends work in good order when a signal asks for it: after the epoch, or a grace at most; asked twice, at once."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 4.0
"""Seconds that an epoch under way has to come to its end."""
TOGETHER_S = 1.0
"""Seconds within which several signals are one: a terminal that closes sends two."""
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a process to end."""
MOST_ARRIVALS = 4096
SHOW_CURSOR = "\x1b[?25h"


Handler = Callable[[int, FrameType | None], object]
_HANDLERS: list[Handler] = []
"""This process's own, which those that it forks do not get."""


class Preempted(Exception):
    """A training was left where it can be resumed, because this process was asked to end."""


class Stopping:
    """Whether this process was asked to end, and what it does then."""

    def __init__(self) -> None:
        self._asked: int | None = None
        self._asked_at = 0.0
        self._is_patient = False
        self._is_overdue = False
        self._is_shown = False
        self._arrivals: int | None = None
        self._heard: frozenset[int] = frozenset()

    @property
    def is_asked(self) -> bool:
        self._note_arrivals()
        return self._asked is not None

    def is_interruption(self, error: BaseException) -> bool:
        """Whether an error that ended user code comes of a request to end, and not of that code.

        Of a process in which nobody listens, as a notebook's, KeyboardInterrupt is one.
        """
        if isinstance(error, Exception):
            return isinstance(error, Preempted)
        is_unheard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return self.is_asked or (isinstance(error, KeyboardInterrupt) and is_unheard)

    @contextmanager
    def hearing(self) -> Iterator[None]:
        """Note signals that are listened to here, whatever handlers the code that runs now sets; put ours back then.

        Python writes each that arrives to a pipe, before any handler is called. Only the main thread can ask for that.
        """
        before = {number: signal.getsignal(number) for number in ASKING}
        ours = {number: handler for number, handler in before.items() if handler in _HANDLERS}
        if not ours or threading.current_thread() is not threading.main_thread():
            yield
            return
        arrivals, written = os.pipe()
        os.set_blocking(arrivals, False)
        os.set_blocking(written, False)
        outer, self._arrivals, self._heard = self._arrivals, arrivals, frozenset(ours)
        earlier = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        try:
            yield
        finally:
            for number, handler in ours.items():
                signal.signal(number, handler)
            self._note_arrivals()
            signal.set_wakeup_fd(earlier)
            self._arrivals = outer
            os.close(written)
            os.close(arrivals)

    def forget_arrivals(self) -> None:
        """Leave what arrives to the process that this one was forked from."""
        self._arrivals = None

    def _note_arrivals(self) -> None:
        if self._arrivals is None or self._asked is not None:
            return
        with contextlib.suppress(OSError):  # nothing has arrived, or the code has ended meanwhile
            arrived = os.read(self._arrivals, MOST_ARRIVALS)
            self._asked = next((number for number in arrived if number in self._heard), None)

    @property
    def signal(self) -> int:
        """The signal that asked; SIGINT where none has."""
        return self._asked or signal.SIGINT

    @property
    def seconds_asked(self) -> float | None:
        """Seconds since a signal asked this process to end, None where none has; to be shown by a view."""
        asked_at = self._asked_at
        return time.monotonic() - asked_at if asked_at else None

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Leave it to a view to say that an end was asked for: what `on_asked` writes would be drawn over."""
        self._is_shown = True
        try:
            yield
        finally:
            self._is_shown = False

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Let what runs here come to a good end by itself when a signal comes, as long as the grace lasts."""
        self._is_patient = True
        try:
            yield
        finally:
            self._is_patient = False

    @contextmanager
    def listening(
        self,
        *,
        to: tuple[int, ...] = ASKING,
        on_asked: Callable[[], None] = lambda: None,
        on_insisted: Callable[[int], None] | None = None,
    ) -> Iterator[None]:
        """Raise KeyboardInterrupt at each of these signals, in the main thread.

        At a later second one, `on_insisted` is called; by default this process ends at once.
        """

        timers: list[threading.Timer] = []

        def handle(number: int, _frame: FrameType | None) -> None:
            if self._is_overdue:
                raise KeyboardInterrupt
            if self._asked_at:
                if time.monotonic() - self._asked_at > TOGETHER_S:
                    (on_insisted or end_at_once)(number)
                return
            self._asked, self._asked_at = number, time.monotonic()
            if not self._is_shown:
                on_asked()
            if not self._is_patient:
                raise KeyboardInterrupt
            timers.append(threading.Timer(GRACE_S, self._hurry))
            timers[0].daemon = True
            timers[0].start()

        leave_to_this_process(handle)
        heard = [number for number in to if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, handle) for number in heard}
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()  # who listens next has not been asked
            for number, handler in before.items():
                signal.signal(number, handler)
            _HANDLERS.remove(handle)
            self._asked, self._asked_at, self._is_overdue = None, 0.0, False

    def ask(self, number: int) -> None:
        """Note that this process was asked to end."""
        self._asked = number

    def _hurry(self) -> None:
        if self._is_patient:
            self._is_overdue = True
            signal.pthread_kill(threading.main_thread().ident or 0, self.signal)  # which wakes what waits, too


def end_at_once(number: int) -> None:
    """End this process with a signal's status; what it wrote is shown, and nothing else is done."""
    with contextlib.suppress(OSError, RuntimeError):  # the reader is gone, or a signal came while something was written
        if sys.stderr.isatty():
            sys.stderr.write(SHOW_CURSOR)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(128 + number)


def leave_to_this_process(handler: Handler) -> None:
    """Keep a signal's handler from processes that this one forks, which get the default instead."""
    _HANDLERS.append(handler)


def _in_forked_process() -> None:
    for number in ASKING:
        if signal.getsignal(number) in _HANDLERS:
            signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(ValueError):  # it is no main thread
        signal.set_wakeup_fd(-1)
    stopping.forget_arrivals()


os.register_at_fork(after_in_child=_in_forked_process)
stopping = Stopping()
"""This process's."""

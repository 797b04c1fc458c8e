"""How long MLflow's client waits for a server, and whether there is one."""

import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException

from sqlalchemy.exc import SQLAlchemyError

from ablation.errors import TrackingUnavailable
from ablation.storage.databases import check_answers, failure, without_password
from ablation.tracking.mlflow.credentials import Credentials

CONNECT_TIMEOUT_S = 5.0
TRIED_EVERY_S = 2.0


NO_SETTINGS: Mapping[str, str] = {}


class Patience:
    """Lets each request of MLflow's client wait so long, and be tried so often; the user's own settings stand.

    MLflow has no other way than the environment, which is the whole process's: it is put back by the last thread. So
    it may be used for one server at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: dict[str, str | None] = {}

    @contextmanager
    def of(
        self,
        *,
        timeout_s: int,
        retries: int,
        settings: Mapping[str, str] = NO_SETTINGS,
        credentials: Credentials | None = None,
    ) -> Iterator[None]:
        """Set the limits and `settings` where the user has not, and what an address says of who asks in any case."""
        limits = {
            **settings,
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
            "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
        }
        with self._lock:
            self._users += 1
            self._set({name: value for name, value in limits.items() if self._is_ours(name)})
            self._set(credentials.settings if credentials is not None else {})
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._put_back()

    def _is_ours(self, name: str) -> bool:
        return self._before.get(name, os.environ.get(name)) is None

    def _set(self, settings: Mapping[str, str]) -> None:
        for name, value in settings.items():
            self._before.setdefault(name, os.environ.get(name))
            os.environ[name] = value

    def _put_back(self) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()


patience = Patience()
"""This process's."""


def wait_for_database(tracking_uri: str, *, limit_s: float, say: Callable[[str], object]) -> None:
    """See that the server of a database answers; one that does not is waited for, which is said.

    MLflow itself tries for nearly two minutes, in silence.

    Raises:
        TrackingUnavailable: it has not answered within the limit.
    """
    deadline, is_told = time.monotonic() + limit_s, False
    while True:
        try:
            check_answers(tracking_uri)
        except (SQLAlchemyError, ImportError, OSError) as error:
            where, reason = without_password(tracking_uri), without_password(failure(error))
            if time.monotonic() >= deadline or isinstance(error, ImportError):
                raise TrackingUnavailable(where, reason) from error
            if not is_told:
                say(f"waiting for MLflow at {where}, {limit_s:.0f} s at most: {reason}")
                is_told = True
            time.sleep(min(TRIED_EVERY_S, max(0.0, deadline - time.monotonic())))
        else:
            return


def check_reachable(tracking_uri: str, credentials: Credentials | None = None) -> None:
    """Fail soon where there is no server: MLflow itself would try for minutes."""
    if not tracking_uri.startswith("http"):
        return
    try:
        request = request_to(tracking_uri, "health", credentials)
        with urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT_S):  # noqa: S310 - likewise
            return
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # it is there; MLflow has settings of its own for certificates
            return
        raise TrackingUnavailable(without_password(tracking_uri), f"no answer ({reason})") from None


def request_to(server: str, page: str, credentials: Credentials | None) -> urllib.request.Request:
    """Return a request for a page of an http(s) server, in the name of who asks."""
    request = urllib.request.Request(f"{server.rstrip('/')}/{page}")  # noqa: S310 - http(s) only, as the caller checks
    if credentials is not None:
        request.add_unredirected_header("Authorization", credentials.header)
    return request

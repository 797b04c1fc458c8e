"""How long MLflow's client waits for a server, and whether there is one."""

import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException

from ablation.databases import without_password
from ablation.errors import TrackingUnavailable

CONNECT_TIMEOUT_S = 5.0


NO_SETTINGS: Mapping[str, str] = {}


class Patience:
    """Lets each request of MLflow's client wait so long, and be tried so often; the user's own settings stand.

    MLflow has no other way than the environment, which is the whole process's: it is put back by the last thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._added: list[str] = []

    @contextmanager
    def of(self, *, timeout_s: int, retries: int, settings: Mapping[str, str] = NO_SETTINGS) -> Iterator[None]:
        limits = {
            **settings,
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout_s),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries),
            "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
        }
        with self._lock:
            self._users += 1
            self._added += [name for name in limits if name not in os.environ]
            os.environ.update({name: limits[name] for name in self._added})
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                while not self._users and self._added:
                    os.environ.pop(self._added.pop(), None)


patience = Patience()
"""This process's."""


def check_reachable(tracking_uri: str) -> None:
    """Fail soon where there is no server: MLflow itself would try for minutes."""
    if not tracking_uri.startswith("http"):
        return
    try:
        with urllib.request.urlopen(f"{tracking_uri.rstrip('/')}/health", timeout=CONNECT_TIMEOUT_S):  # noqa: S310 - http(s) only, checked above
            return
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):  # it is there; MLflow has settings of its own for certificates
            return
        raise TrackingUnavailable(without_password(tracking_uri), f"no answer ({reason})") from None

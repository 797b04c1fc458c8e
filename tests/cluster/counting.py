"""A way to a port of this machine that counts what is sent there."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

BLOCK = 1 << 18


@dataclass(slots=True, kw_only=True)
class Counted:
    """A port that leads to another, and the bytes that were sent by this way so far."""

    port: int
    sent: int = 0


@contextmanager
def counted(port: int) -> Iterator[Counted]:
    """Lead whoever connects to a new port to another one, both on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = Counted(port=server.getsockname()[1])
        threading.Thread(target=_accept, args=[server, port, found], daemon=True).start()
        yield found


def _accept(server: socket.socket, port: int, counted: Counted) -> None:
    with suppress(OSError):  # it is closed
        while True:
            theirs, _ = server.accept()
            threading.Thread(target=_lead, args=[theirs, port, counted], daemon=True).start()


def _lead(theirs: socket.socket, port: int, counted: Counted) -> None:
    with suppress(OSError), theirs, socket.create_connection(("127.0.0.1", port)) as ours:
        back = threading.Thread(target=_pass, args=[ours, theirs, None], daemon=True)
        back.start()
        _pass(theirs, ours, counted)
        back.join()


def _pass(source: socket.socket, target: socket.socket, counted: Counted | None) -> None:
    with suppress(OSError):
        while data := source.recv(BLOCK):
            if counted is not None:
                counted.sent += len(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)

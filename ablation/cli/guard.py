"""Runs a command until it ends, or until whoever holds this process's standard input is gone: then nothing is left.

MLflow's server is a process with processes of its own, and none of them notices that the one above was killed. This
file is run by its path, in a session of its own, and imports nothing but the standard library.
"""

import os
import signal
import subprocess
import sys
import threading

PATIENCE_S = 5.0


def main(command: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: None)  # the group is told to end, and this must see that it does
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - the command of whoever started this
    threading.Thread(target=_end_when_alone, args=[server], daemon=True).start()
    status = server.wait()
    os.killpg(0, signal.SIGTERM)
    return status


def _end_when_alone(server: "subprocess.Popen[bytes]") -> None:
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGTERM)
    try:
        server.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

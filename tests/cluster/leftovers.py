"""What a test of a cluster may leave behind: processes of a folder, and ports that answer other machines."""

import contextlib
import os
import shutil
from pathlib import Path

import psutil

DYING_WITH_THIS = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
"""Before a command: it ends with the process that starts it, however that ends."""
LOOPBACK = ("127.", "::1")


def processes_of_folder(folder: Path) -> list[psutil.Process]:
    """Return the processes that a folder is named to, or that work in it."""
    mine = os.getpid()
    return [one for one in psutil.process_iter() if one.pid != mine and _is_of(one, str(folder))]


def open_to_others(process: psutil.Process) -> list[str]:
    """Return the addresses beyond loopback that a process and its children listen on."""
    found = []
    for each in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            listening = [one for one in each.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
            found += [f"{one.laddr.ip}:{one.laddr.port}" for one in listening]
    return [address for address in found if not address.startswith(LOOPBACK)]


def _is_of(process: psutil.Process, folder: str) -> bool:
    try:
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            told = [*process.cmdline(), *process.environ().values(), process.cwd()]
    except psutil.Error:
        return False
    return any(folder in text for text in told)

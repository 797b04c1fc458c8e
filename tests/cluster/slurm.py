"""A real SLURM on this machine's loopback: a controller and two nodes with made-up GPUs, and preemption.

Needs the programs of Debian's slurm-wlm and munge, and root: the nodes start jobs as who submits them, and a GPU is a
device node. Its jobs and daemons end with it.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from conftest import eventually, free_port
from leftovers import DYING_WITH_THIS, processes_of_folder
from targets import send

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "squeue", "sinfo")
NODES = ("n1", "n2")
GPUS = (0, 1)
"""Of each node, by number."""
GRACE_S = 5
"""Between the signal to a job that is preempted and its end."""
LOOKS_EVERY_S = 30
"""Between the controller's looks for jobs whose time is over."""
CREDENTIAL_S = 10
"""A job that was ended is queued again when what it was started with is valid no more, by default for two minutes."""
NULL_DEVICE = os.makedev(1, 3)
ENDS_WITHIN_S = 10.0
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
CONFIGURATION = """
ClusterName=tiny
SlurmctldHost=HOST(127.0.0.1)
SlurmctldPort=PORT
AuthType=auth/munge
AuthInfo=socket=FOLDER/munge.socket,cred_expire=CREDENTIAL
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
StateSaveLocation=FOLDER/state
SlurmdSpoolDir=FOLDER/spool/%n
SlurmctldPidFile=FOLDER/slurmctld.pid
SlurmdPidFile=FOLDER/%n.pid
SlurmctldLogFile=FOLDER/log/slurmctld.log
SlurmdLogFile=FOLDER/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
ReturnToService=2
KillWait=GRACE
SlurmdParameters=config_overrides
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
"""
NODE = "NodeName={name} NodeAddr=127.0.0.1 NodeHostname={host} Port={port} CPUs=2 RealMemory=4000 Gres=gpu:{gpus}\n"
PARTITIONS = """
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=GRACE PreemptMode=REQUEUE
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def why_not() -> str | None:
    """Return why there can be no SLURM here, None where it can."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=SEARCHED) is None]
    if missing:
        return f"slurm-wlm and munge are not installed: no {', '.join(missing)}"
    return None if os.getuid() == 0 else "SLURM starts jobs as whoever submits them, which needs root"


class Slurm:
    """The cluster; `folder` holds all that its daemons write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._environment = {**os.environ, "PATH": SEARCHED, "SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        """Start it, and wait until its nodes take jobs."""
        self._configure()
        names = {"key-file": "munge.key", "socket": "munge.socket", "log-file": "munge.log", "seed-file": "munge.seed"}
        files = {**names, "pid-file": "munge.pid"}
        self._start("munged", "--foreground", "--force", *(f"--{key}={self._folder / files[key]}" for key in files))
        eventually((self._folder / "munge.socket").exists)
        self._start("slurmctld", "-D", "-c")
        for name in NODES:
            self._start("slurmd", "-D", "-N", name)
        eventually(lambda: str(len(NODES)) == self._output("sinfo", "-h", "-t", "idle", "-o", "%D", is_checked=False))

    def stop(self) -> None:
        """End its jobs and its daemons, and whatever of them is left."""
        subprocess.run(["scancel", "--full", "--user=root"], env=self._environment, check=False, capture_output=True)
        deadline = time.monotonic() + ENDS_WITHIN_S
        while self._output("squeue", "-h", is_checked=False) and time.monotonic() < deadline:
            time.sleep(0.1)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for process in processes_of_folder(self._folder):
            send(process, signal.SIGKILL)

    def submit(self, script: str, *options: str, environment: Mapping[str, str] | None = None) -> str:
        """Submit a batch script, and return the job's number."""
        command = ["sbatch", "--parsable", *options]
        given = {**self._environment, **(environment or {})}
        done = subprocess.run(
            command, env=given, cwd=self._folder, input=script, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def cancel(self, job: str) -> None:
        self._output("scancel", "--full", job)

    def states(self, job: str) -> Sequence[str]:
        """Return the states of a job's array, in its order: RUNNING, PENDING, COMPLETED."""
        return self._output("squeue", "-h", "-r", "-t", "all", "-S", "i", "-o", "%T", "-j", job).split()

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted((self._folder / "log").glob("*.log")))

    @property
    def daemons(self) -> list[psutil.Process]:
        return [psutil.Process(daemon.pid) for daemon in self._daemons]

    def _configure(self) -> None:
        for name in ("state", "log", "dev", *(f"spool/{name}" for name in NODES)):
            (self._folder / name).mkdir(parents=True)
        devices = [self._folder / "dev" / f"gpu{number}" for number in GPUS]
        for device in devices:
            os.mknod(device, 0o020666, NULL_DEVICE)
        key = self._folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(64))
        host = socket.gethostname().partition(".")[0]
        words = {
            "FOLDER": str(self._folder),
            "HOST": host,
            "PORT": str(free_port()),
            "GRACE": str(GRACE_S),
            "CREDENTIAL": str(CREDENTIAL_S),
        }
        nodes = (NODE.format(name=name, host=host, port=free_port(), gpus=len(GPUS)) for name in NODES)
        text = CONFIGURATION + "".join(nodes) + PARTITIONS
        for word, value in words.items():
            text = text.replace(word, value)
        (self._folder / "slurm.conf").write_text(text)
        (self._folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in devices))

    def _start(self, program: str, *arguments: str) -> None:
        with (self._folder / "log" / "daemons.log").open("ab") as log:
            self._daemons.append(
                subprocess.Popen(
                    [*DYING_WITH_THIS, program, *arguments],
                    env=self._environment,
                    cwd=self._folder,
                    stdout=log,
                    stderr=log,
                )
            )

    def _output(self, *command: str, is_checked: bool = True) -> str:
        done = subprocess.run(command, env=self._environment, check=is_checked, capture_output=True, text=True)
        return done.stdout.strip()

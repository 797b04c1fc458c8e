"""A cluster and the command that runs the study on it: what tests do to both, and what must hold afterwards."""

import signal
from collections.abc import Callable
from pathlib import Path

from cluster_checks import problems_of_cluster
from cluster_study import PAUSE, STUDY, Alone, write_study
from conftest import command_environment, eventually
from engine import Cluster, Node
from forking import Starter
from leftovers import processes_of_folder
from targets import Command, Ending, send

from ablation.storage.run_folder import EPOCHS, RunFolder
from ablation.storage.state import State

TRACEBACK = "Traceback (most recent call last)"
PAUSE_S = 0.05
"""Of two steps an epoch: a run takes some seconds."""
LEASE_S = 6.0
"""In place of a minute: how long a job goes on that nobody asks for."""


class Bed:
    """A study's own folder beside a cluster's; nodes are added by the test."""

    def __init__(
        self, folder: Path, data_cache: Path, store: Path, starter: Starter, *, cluster: Cluster | None = None
    ) -> None:
        """Make both folders, or share another bed's cluster."""
        self.folder, self.state = folder / "study", folder / "study" / "state"
        self.folder.mkdir(parents=True)
        environment = command_environment(self.folder, data_cache, store=store)
        write_study(self.folder)
        self.address = environment["MLFLOW_TRACKING_URI"]
        shared = {"ABLATION_CHECKPOINT_SECONDS": "0", "ABLATION_LEASE_SECONDS": str(LEASE_S)}
        nodes = {**shared, PAUSE: str(PAUSE_S), "ABLATION_NODE_COPY": "1"}
        self.cluster = cluster or Cluster(folder / "cluster", nodes)
        self._environment, self._starter = {**environment, **shared}, starter
        self.take(str(self.cluster.file))

    def take(self, where: str, *more: str) -> None:
        """Have the command run the study on the cluster whose scheduler is there."""
        arguments = ["-m", "ablation", "study", "nodes.yaml", "--executor", f"dask:{where}", *more]
        self.command = Command(arguments, environment=self._environment, folder=self.folder, starter=self._starter)

    def close(self) -> None:
        """End all that is left of the command and the cluster."""
        self.command.send(signal.SIGKILL)
        self.cluster.close()
        for process in processes_of_folder(self.folder):
            send(process, signal.SIGKILL)

    def start(self, *names: str) -> list[Node]:
        """Start the scheduler, nodes of these names and the command, and return the nodes."""
        self.cluster.start_scheduler()
        nodes = [self.cluster.add(name) for name in names]
        self.command.start()
        return nodes

    def await_epochs(self, count: int = 1, *, runs: int = 1) -> None:
        """Wait until so many runs under way have been heard of up to an epoch."""
        eventually(lambda: self.is_still_running() and sum(found >= count for found in self.epochs().values()) >= runs)

    def epochs(self) -> dict[str, int]:
        """Return how many epochs the command has of each run under way, by identity."""
        files = (self.state / "begun").glob(f"*/*/{EPOCHS}")
        return {file.parent.name: file.read_bytes().count(b"\n") for file in files}

    def is_still_running(self) -> bool:
        assert not self.command.has_ended, self.command.output
        return True

    def begun(self, identity: str) -> RunFolder:
        return State(folder=self.state).begun(STUDY, identity)

    def end(self, *, within_s: float = 120.0) -> Ending:
        """Wait until the command has ended by itself."""
        return self.command.ending("by itself", limit_s=within_s)

    def check(self, alone: Alone) -> Ending:
        """See that the command ends by itself, with what the study comes to alone."""
        ending = self.end()
        assert 0 == ending.status, ending.output
        assert TRACEBACK not in ending.output
        assert "was never retrieved" not in ending.output
        problems = self.problems(alone)
        assert [] == problems, "\n".join((*problems, ending.output))
        return ending

    def problems(self, alone: Alone) -> list[str]:
        nodes = [node for node in self.cluster.nodes if node.is_up]
        return problems_of_cluster(alone, address=self.address, state=self.state, nodes=nodes)


MakeBed = Callable[..., Bed]
"""Makes a bed in a folder of a name, with a cluster of its own or another bed's."""

"""Jobs on nodes, by agents without an engine: where they run, what they leave, and what their futures carry."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from agents import Nodes
from jobs import end_when_asked, have_no_room, keep_a_checkpoint, train_a_little

from ablation.executors.interface import Files, NodeLost
from ablation.executors.nodes.jobs import packed
from ablation.executors.nodes.placing import Placing
from ablation.executors.nodes.roster import RemoteJob, Roster
from ablation.stopping import Preempted

LEAVE = "begun/study/run"
OTHERS = "1" * 32


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path, 2)
    yield made
    made.end()


class Desk:
    """A coordinator's side, on nodes that are looked at again and again."""

    def __init__(self, nodes: Nodes, home: Path, *, most: int | None = None) -> None:
        self.notes: list[str] = []
        self.nodes, self.home = nodes, home
        self.roster = Roster(device="cpu", note=self.notes.append)
        self.placing = Placing(
            self.roster, ask=nodes.ask, show=lambda token, address: None, wake=lambda: None, most=most
        )

    def submit(self, function: Callable[..., object], *args: object, leave: str = LEAVE) -> "Future[Any]":
        files = Files(home=self.home, leaves=(leave,))
        job = RemoteJob(future=Future(), call=packed(function, args), files=files)
        self.placing.take(job)
        return job.future

    async def until(self, holds: Callable[[], bool]) -> None:
        """Look at the nodes, as an executor does, until something holds."""
        while not holds():
            self.roster.see(dict.fromkeys(self.nodes.agents, 1), self.nodes)
            await self.roster.ask_for_news(self.nodes)
            self.placing.place()
            await asyncio.sleep(0.02)


def at_desk(nodes: Nodes, home: Path, story: Callable[[Desk], Awaitable[None]], *, most: int | None = None) -> Desk:
    """Have a story told, and let go of all jobs then."""

    async def told() -> Desk:
        desk = Desk(nodes, home, most=most)
        try:
            async with asyncio.timeout(60):
                await story(desk)
        finally:
            await desk.placing.end(None)
        return desk

    return asyncio.run(told())


def test_a_job_leaves_at_home_what_it_left_at_its_node(nodes: Nodes, tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        future = desk.submit(train_a_little)
        await desk.until(future.done)
        assert 7 == future.result()

    at_desk(nodes, tmp_path / "state", story)

    folder = tmp_path / "state" / LEAVE
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "started.json",
        "metrics.jsonl",
        "artifacts/a.txt",
        "result.json",
    }
    assert ["id"] == [path.name for path in (tmp_path / "state" / "nodes").iterdir()]


def test_a_job_that_one_node_refuses_runs_at_another_and_nobody_is_told(nodes: Nodes, tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.until(lambda: desk.placing.slots == 2)
        nodes.agents["n0"].reserve(coordinator="other", asked_in=0, token="t", device="cpu", of=OTHERS, leaves=[])
        futures = [desk.submit(have_no_room, "nowhere", leave=f"begun/study/{k}") for k in range(3)]
        await desk.until(lambda: all(future.done() for future in futures))

        assert all("n1" in future.result() for future in futures)
        assert 1 == desk.placing.slots
        assert [] == desk.notes

    at_desk(nodes, tmp_path / "state", story)


def test_a_node_whose_disk_is_full_is_told_once_and_its_jobs_run_at_another(nodes: Nodes, tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.until(lambda: desk.placing.slots == 2)
        futures = [desk.submit(have_no_room, "n0", leave=f"begun/study/{k}") for k in range(3)]
        await desk.until(lambda: all(future.done() for future in futures))

        assert all("n1" in future.result() for future in futures)
        assert 1 == desk.placing.slots
        (note,) = desk.notes
        assert note.startswith("node host (n0) gets no runs: it cannot write in ")
        assert note.endswith("No space left on device")

    at_desk(nodes, tmp_path / "state", story)


def test_no_more_jobs_run_than_are_wished(nodes: Nodes, tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.until(lambda: desk.placing.slots == 1)
        for number in range(2):
            desk.submit(end_when_asked, leave=f"begun/study/{number}")
        await desk.until(lambda: sum(len(agent._jobs) for agent in nodes.agents.values()) == 1)
        for _ in range(5):
            await desk.roster.ask_for_news(nodes)
            desk.placing.place()

        assert 1 == sum(len(agent._jobs) for agent in nodes.agents.values())

    at_desk(nodes, tmp_path / "state", story, most=1)


def _pickled(said: Any) -> Any:
    """Return an answer whose result cannot be unpickled."""
    return {**said, "value": b"cno_such_module\nNothing\n."}


def test_a_result_that_cannot_be_read_is_the_loss_of_its_node_and_not_of_the_study(
    nodes: Nodes, tmp_path: Path
) -> None:
    _with(nodes, "offer_ended", _pickled)

    async def story(desk: Desk) -> None:
        future = desk.submit(train_a_little)
        await desk.until(future.done)

        assert isinstance(future.exception(), NodeLost)
        assert "sent a result that cannot be read here: ModuleNotFoundError: No module named" in str(future.exception())
        assert [] == desk.notes

    at_desk(nodes, tmp_path / "state", story)
    assert (tmp_path / "state" / LEAVE / "result.json").exists()


@pytest.mark.parametrize("lacking", ["left", "kind", "value"])
def test_a_node_whose_last_answer_lacks_something_gets_no_more_runs(nodes: Nodes, tmp_path: Path, lacking: str) -> None:
    _with(nodes, "offer_ended", lambda said: {key: said[key] for key in said if key != lacking})

    async def story(desk: Desk) -> None:
        future = desk.submit(train_a_little)
        await desk.until(future.done)

        assert isinstance(future.exception(), NodeLost)
        assert f"its answer cannot be read: KeyError: '{lacking}'" in str(future.exception())
        await desk.until(lambda: desk.placing.slots == 1)

    at_desk(nodes, tmp_path / "state", story)


def test_a_job_whose_node_is_gone_says_so(nodes: Nodes, tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        future = desk.submit(end_when_asked)
        await desk.until((tmp_path / "state" / LEAVE / "metrics.jsonl").exists)
        desk.roster.see({}, nodes)
        while not future.done():
            await asyncio.sleep(0.01)

        error = future.exception()
        assert isinstance(error, NodeLost)
        assert str(error).startswith("its node host (n")
        assert str(error).endswith("is gone")

    at_desk(nodes, tmp_path / "state", story)


def test_jobs_are_brought_to_an_end_where_the_coordinator_is_to_end(nodes: Nodes, tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        futures = [desk.submit(end_when_asked, leave=leave) for leave in (LEAVE, "begun/study/2", "begun/study/3")]
        await desk.until((tmp_path / "state" / LEAVE / "metrics.jsonl").exists)
        desk.placing.begin_stop()
        late = desk.submit(end_when_asked)
        await desk.until(lambda: all(future.done() for future in futures))

        assert [Preempted] * 4 == [type(future.exception()) for future in (*futures, late)]

    at_desk(nodes, tmp_path / "state", story)


def _with(nodes: Nodes, verb: str, change: Callable[[Any], Any]) -> None:
    """Have what nodes answer to a question changed."""
    before = nodes.ask

    async def ask(address: str, asked_verb: str, **asked: Any) -> Any:
        said = await before(address, asked_verb, **asked)
        return change(said) if asked_verb == verb else said

    nodes.ask = ask  # type: ignore[method-assign]


def test_an_artifact_that_is_still_written_when_its_job_has_ended_is_fetched_again(
    nodes: Nodes, tmp_path: Path
) -> None:
    changed: list[Path] = []

    def change_once(said: Any) -> Any:
        if not changed:
            changed.extend(nodes.agents[name].folder.path for name in nodes.agents)
            for file in [file for folder in changed for file in folder.rglob("a.txt")]:
                file.write_text("more than was announced")
        return said

    _with(nodes, "offer_ended", change_once)

    async def story(desk: Desk) -> None:
        future = desk.submit(train_a_little)
        await desk.until(future.done)

        assert 7 == future.result()
        assert [] == desk.notes

    at_desk(nodes, tmp_path / "state", story)
    assert (tmp_path / "state" / LEAVE / "artifacts" / "a.txt").read_text() == "more than was announced"


@pytest.mark.parametrize(
    "left",
    [
        {LEAVE: [{"name": "../../../runs/x/result.json", "size": 1, "digest": "0" * 64}]},
        {LEAVE: [{"name": "about.json", "size": 1, "digest": "0" * 64}]},
        {"begun/study/another": []},
        {LEAVE: [{"name": "artifacts/a.txt", "size": 8, "digest": "0" * 64}]},
        7,
    ],
    ids=["elsewhere", "no file of a run", "of another run", "of another content", "nothing"],
)
def test_a_node_that_sends_what_is_not_taken_gets_no_more_runs(nodes: Nodes, tmp_path: Path, left: object) -> None:
    _with(nodes, "offer_ended", lambda said: {**said, "left": left})

    async def story(desk: Desk) -> None:
        future = desk.submit(train_a_little)
        await desk.until(future.done)

        assert isinstance(future.exception(), NodeLost)
        assert "is not to be trusted" in str(future.exception())
        await desk.until(lambda: desk.placing.slots == 1)
        assert 1 == len(desk.notes)

    at_desk(nodes, tmp_path / "state", story)
    assert not (tmp_path / "state" / LEAVE / "result.json").exists()


def test_a_checkpoint_is_carried_while_its_run_goes_on(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablation.executors.nodes.remote.CARRY_EVERY_S", 0.0)
    kept = tmp_path / "state" / LEAVE / "checkpoints" / "epoch-000001-eager.pt"

    async def story(desk: Desk) -> None:
        future = desk.submit(keep_a_checkpoint)
        await desk.until(kept.exists)

        assert not future.done()

    at_desk(nodes, tmp_path / "state", story)
    assert kept.read_text() == "checkpoint"

"""What an agent promises its coordinators: slots, tokens, leases, files; and what their side makes of it."""

import asyncio
import errno
import os
import pickle
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from agents import Clock, Nodes, make_agent
from conftest import eventually
from jobs import end_when_asked, train_a_little

from ablation.errors import DiskFull
from ablation.executors.interface import Files, Needed
from ablation.executors.nodes import agent as agents
from ablation.executors.nodes.agent import Agent
from ablation.executors.nodes.delivering import MOST_SENT, Deliveries
from ablation.executors.nodes.files import CarriedFile, CarriedWrong
from ablation.executors.nodes.fitness import here, why_of_agent, why_of_engine, why_of_hello, why_of_slots
from ablation.executors.nodes.folder import NodeFolder
from ablation.executors.nodes.home import CoordinatorFolder
from ablation.executors.nodes.jobs import packed
from ablation.executors.nodes.refusing import Refused
from ablation.executors.nodes.roster import LOST_S, Node, RemoteJob, Roster
from ablation.stopping import Preempted

OF = "0" * 32
LEAVE = "begun/study/run"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def agent(tmp_path: Path, clock: Clock) -> Iterator[Agent]:
    made = make_agent(tmp_path / "node", clock)
    yield made
    for token in list(made._jobs):
        made.release(token=token)
    made.end_all()


def _reserve(agent: Agent, token: str, *, coordinator: str = "one", asked_in: int = 0) -> None:
    agent.reserve(coordinator=coordinator, asked_in=asked_in, token=token, device="cpu", of=OF, leaves=[LEAVE])


def _begin(agent: Agent, token: str, job: Callable[..., object] = end_when_asked, *, coordinator: str = "one") -> None:
    _reserve(agent, token, coordinator=coordinator)
    agent.start(token=token, call=packed(job, ()), has_files=True)


def _ask(agent: Agent, *tokens: str, coordinator: str = "one", asked_in: int = 1) -> Mapping[str, Any]:
    return agent.ask(coordinator=coordinator, asked_in=asked_in, seen=dict.fromkeys(tokens, 0))


def _folder(agent: Agent) -> Path:
    return agent.folder.path / "of" / OF / LEAVE


def _has_begun(agent: Agent) -> bool:
    return (_folder(agent) / "metrics.jsonl").exists()


# Slots and tokens


def test_a_slot_is_of_one_job_at_a_time(agent: Agent) -> None:
    _reserve(agent, "first")

    with pytest.raises(Refused, match="another job runs there") as refused:
        agent.reserve(coordinator="two", asked_in=0, token="second", device="cpu", of="1" * 32, leaves=[LEAVE])

    assert refused.value.kind == "busy"
    assert {"cpu": 0, "cuda": 0} == _ask(agent, "first")["free"]


def test_a_reservation_may_be_asked_for_twice(agent: Agent) -> None:
    _reserve(agent, "first")
    _reserve(agent, "first")

    assert ["first"] == list(_ask(agent, "first")["jobs"])


def test_a_job_ends_with_its_result_and_what_it_left_and_is_forgotten_once_that_is_fetched(agent: Agent) -> None:
    _begin(agent, "first", train_a_little)
    eventually(lambda: _ask(agent, "first")["jobs"]["first"]["is_ended"])

    offered = agent.offer_ended(token="first")
    names = [file["name"] for file in offered["left"][LEAVE]]
    pieces = agent.pieces(token="first", wanted=[(LEAVE, "artifacts/a.txt", 0), (LEAVE, "result.json", 1)])
    agent.release(token="first")

    assert ("result", 7) == (offered["kind"], pickle.loads(offered["value"]))
    assert ["started.json", "metrics.jsonl", "artifacts/a.txt", "result.json"] == names
    assert [b"artifact", b"}"] == pieces
    assert not _folder(agent).exists()
    with pytest.raises(Refused, match="not known here any more"):
        agent.offer_ended(token="first")


def test_what_is_not_offered_cannot_be_fetched(agent: Agent) -> None:
    _begin(agent, "first", train_a_little)
    eventually(lambda: _ask(agent, "first")["jobs"]["first"]["is_ended"])
    agent.offer_ended(token="first")

    with pytest.raises(CarriedWrong, match="no name of a file"):
        agent.pieces(token="first", wanted=[(LEAVE, "artifacts/../started.json", 0)])
    for leave, name in (("begun/study/other", "result.json"), (LEAVE, "about.json")):
        with pytest.raises(Refused, match="not offered"):
            agent.pieces(token="first", wanted=[(leave, name, 0)])


def test_epochs_are_in_the_answer_as_they_are_measured(agent: Agent) -> None:
    _begin(agent, "first")
    eventually(lambda: _has_begun(agent))

    told = _ask(agent, "first")["jobs"]["first"]["folders"][LEAVE]

    assert (b"{}\n", 0) == (told["epochs"], told["offset"])


def test_a_job_that_its_coordinator_names_no_more_is_ended_and_leaves_nothing(agent: Agent) -> None:
    _begin(agent, "first")
    eventually(lambda: _has_begun(agent))

    _ask(agent)

    eventually(lambda: not _folder(agent).exists())
    eventually(lambda: {"cpu": 1, "cuda": 0} == _ask(agent)["free"])


def test_a_job_that_was_announced_after_a_question_was_written_is_not_ended_by_it(agent: Agent) -> None:
    _reserve(agent, "first", asked_in=3)

    _ask(agent, asked_in=3)

    assert ["first"] == list(_ask(agent, "first", asked_in=4)["jobs"])


def test_a_coordinator_hears_nothing_of_anothers_jobs_and_ends_none(agent: Agent) -> None:
    _begin(agent, "first")

    assert {} == _ask(agent, "first", coordinator="two")["jobs"]
    agent.end(coordinator="two")

    assert not _ask(agent, "first")["jobs"]["first"]["is_ended"]


def test_a_run_that_a_killed_coordinators_job_trains_is_taken_over_by_the_next_one(agent: Agent) -> None:
    _begin(agent, "old")
    eventually(lambda: _has_begun(agent))

    _begin(agent, "new", train_a_little, coordinator="next")

    eventually(lambda: _ask(agent, "new", coordinator="next")["jobs"]["new"]["is_ended"])
    assert [] == list(_ask(agent, "old")["jobs"])


# Ends


def test_a_job_that_nobody_asks_for_is_ended_as_by_a_signal_and_leaves_nothing(agent: Agent, clock: Clock) -> None:
    _begin(agent, "first")
    eventually(lambda: _has_begun(agent))

    clock.now = agents.LEASE_S
    agent.see_leases()
    assert _folder(agent).exists()
    clock.now += 1.0
    agent.see_leases()

    assert not _folder(agent).exists()
    assert {} == _ask(agent, "first")["jobs"]


def test_a_question_renews_the_lease(agent: Agent, clock: Clock) -> None:
    _begin(agent, "first")
    clock.now = agents.LEASE_S
    _ask(agent, "first")
    clock.now += agents.LEASE_S

    agent.see_leases()

    assert not _ask(agent, "first")["jobs"]["first"]["is_ended"]


def test_jobs_that_are_brought_to_an_end_say_that_they_were(agent: Agent) -> None:
    _begin(agent, "first")
    eventually(lambda: _has_begun(agent))

    agent.end(coordinator="one")

    offered = agent.offer_ended(token="first")
    assert ("error", Preempted) == (offered["kind"], type(pickle.loads(offered["value"])))
    assert ["metrics.jsonl"] == [file["name"] for file in offered["left"][LEAVE]]


def test_an_agent_that_is_to_end_waits_until_what_its_jobs_left_is_fetched(agent: Agent) -> None:
    _begin(agent, "first")
    eventually(lambda: _has_begun(agent))
    ending = threading.Thread(target=agent.end_all)
    ending.start()
    eventually(lambda: _ask(agent, "first")["jobs"]["first"]["is_ended"])

    assert ending.is_alive()
    assert _ask(agent, "first")["is_ending"]
    with pytest.raises(Refused, match="about to end"):
        _reserve(agent, "second")
    agent.release(token="first")
    ending.join(timeout=1.0)

    assert not ending.is_alive()


# Files


def _plain(*files: tuple[str, bytes]) -> list[dict[str, object]]:
    import hashlib

    return [
        CarriedFile(name=name, size=len(data), digest=hashlib.sha256(data).hexdigest()).plain() for name, data in files
    ]


def test_a_run_begins_with_what_was_sent_of_it_and_nothing_else(agent: Agent) -> None:
    (_folder(agent) / "checkpoints").mkdir(parents=True)
    (_folder(agent) / "checkpoints" / "epoch-000009-eager.pt").write_text("of another")
    _reserve(agent, "first")
    agent.expect_leave(token="first", leave=LEAVE, files=_plain(("metrics.jsonl", b"1\n")))
    agent.put_leave(token="first", leave=LEAVE, name="metrics.jsonl", offset=0, data=b"1\n")

    agent.start(token="first", call=packed(end_when_asked, ()), has_files=True)

    assert not (_folder(agent) / "checkpoints").exists()
    assert (_folder(agent) / "metrics.jsonl").read_text().startswith("1\n")


@pytest.mark.parametrize("need", ["data/../../etc", "other/x", "data", "data/a/b", "/data/x"])
def test_what_is_neither_data_nor_code_is_not_brought(agent: Agent, need: str) -> None:
    delivery = agent.arrivals.expect(files=_plain(("a", b"1")))
    agent.arrivals.put(delivery=delivery, name="a", offset=0, data=b"1")

    with pytest.raises(CarriedWrong):
        agent.arrivals.complete(delivery=delivery, need=need)


@pytest.mark.parametrize("leave", ["../x", "data/x", "code/x", ".hidden", "/tmp/x"])
def test_a_job_leaves_nothing_elsewhere(agent: Agent, leave: str) -> None:
    with pytest.raises(CarriedWrong):
        agent.reserve(coordinator="one", asked_in=0, token="t", device="cpu", of=OF, leaves=[leave])


def test_data_that_was_damaged_is_brought_again(agent: Agent) -> None:
    files = _plain(("a", b"1"))
    _reserve(agent, "first")

    def bring() -> None:
        delivery = agent.arrivals.expect(files=files)
        agent.arrivals.put(delivery=delivery, name="a", offset=0, data=b"1")
        agent.arrivals.complete(delivery=delivery, need="data/x")

    bring()
    assert agent.has(token="first", need="data/x", files=files)
    (agent.folder.path / "data" / "x" / "a").write_text("2")

    assert not agent.has(token="first", need="data/x", files=files)
    bring()
    assert agent.has(token="first", need="data/x", files=files)
    assert (agent.folder.path / "of" / OF / "data" / "x" / "a").read_text() == "1"


def test_workers_with_one_folder_have_one_id(tmp_path: Path) -> None:
    ids = [NodeFolder(path=tmp_path / name).make() for name in ("a", "a", "b")]

    assert ids[0] == ids[1] != ids[2]


# The coordinator's side, on agents that answer at once


def _needed(folder: Path) -> Needed:
    folder.mkdir(parents=True)
    (folder / "words.txt").write_text("seven")
    return Needed(name=f"data/{folder.name}", files={"words.txt": folder / "words.txt"})


def _bring(nodes: Nodes, need: Needed, home: CoordinatorFolder, addresses: list[str]) -> None:
    async def bring_all() -> None:
        deliveries = Deliveries(nodes.ask)
        for address in addresses:
            _reserve(nodes.agents[address], address)
        calls = [deliveries.bring(need, node=nodes.node(one), token=one, home=home) for one in addresses]
        await asyncio.gather(*calls)

    asyncio.run(bring_all())


def _read(nodes: Nodes, address: str, need: Needed) -> str:
    return (nodes.agents[address].folder.path / "of" / OF / need.name / "words.txt").read_text()


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorFolder:
    return CoordinatorFolder.of(tmp_path / "state")


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no node see the coordinator's files, which on one machine they do."""
    monkeypatch.setattr(NodeFolder, "find_shared", lambda *_, **__: False)


@pytest.mark.usefixtures("apart")
def test_data_is_sent_twice_at_most_and_nodes_fetch_it_from_each_other(tmp_path: Path, home: CoordinatorFolder) -> None:
    nodes, need = Nodes(tmp_path, 5), _needed(tmp_path / "state" / "data" / "words-0")

    _bring(nodes, need, home, list(nodes.agents))

    assert ["seven"] * 5 == [_read(nodes, address, need) for address in nodes.agents]
    assert len(nodes.sent) <= MOST_SENT


@pytest.mark.usefixtures("apart")
def test_data_is_sent_where_nodes_do_not_reach_each_other(tmp_path: Path, home: CoordinatorFolder) -> None:
    nodes, need = Nodes(tmp_path, 4), _needed(tmp_path / "state" / "data" / "words-0")
    nodes.cut = set(nodes.agents)

    _bring(nodes, need, home, list(nodes.agents))

    assert ["seven"] * 4 == [_read(nodes, address, need) for address in nodes.agents]


@pytest.mark.usefixtures("apart")
def test_nodes_with_one_folder_are_sent_data_once(tmp_path: Path, home: CoordinatorFolder) -> None:
    nodes, need = Nodes(tmp_path, 1), _needed(tmp_path / "state" / "data" / "words-0")
    nodes.agents["twin"] = make_agent(tmp_path / "n0")

    _bring(nodes, need, home, ["n0", "twin"])

    assert ["n0"] == nodes.sent
    assert _read(nodes, "twin", need) == "seven"


def test_data_is_read_where_it_lies_by_a_node_that_sees_it(tmp_path: Path, home: CoordinatorFolder) -> None:
    nodes, need = Nodes(tmp_path, 1), _needed(tmp_path / "state" / "data" / "words-0")

    _bring(nodes, need, home, ["n0"])

    assert [] == nodes.sent
    assert (tmp_path / "n0" / "of" / OF / need.name).resolve() == tmp_path / "state" / "data" / "words-0"


@pytest.mark.parametrize("is_copying", [True, False])
def test_data_is_copied_where_the_nonce_is_not_seen_or_a_copy_is_wished(tmp_path: Path, is_copying: bool) -> None:
    need = _needed(tmp_path / "state" / "data" / "words-0")
    folder = NodeFolder(path=tmp_path / "node", is_copying=is_copying)
    nonce = tmp_path / "nonce"
    if is_copying:
        nonce.touch()

    assert not folder.find_shared(need.name, folder.home(OF), nonce=nonce, files=need.files)


# Fitness


def test_a_node_of_other_versions_is_unfit_with_both_sides_named() -> None:
    same = {"version": here()["ablation"], "python": here()["Python"], "torch": f"{here()['torch']}+cu999"}

    assert why_of_hello(same) is None
    assert why_of_hello({**same, "version": "0.0.1"}) == (
        f"it has ablation 0.0.1, and this machine ablation {here()['ablation']}"
    )
    assert why_of_hello({**same, "torch": ""}) == f"it has no torch, and this machine torch {here()['torch']}"


def test_a_node_without_the_device_is_unfit_and_says_why() -> None:
    said = {"slots": {"cpu": 1, "cuda": 0}, "why_no_gpu": "the driver is too old"}

    assert why_of_slots(said, "cpu") is None
    assert why_of_slots(said, "cuda") == "it has no GPU, which was asked for: the driver is too old"


def test_a_worker_of_another_python_is_unfit_before_anything_is_sent_to_it() -> None:
    assert why_of_engine({"packages": {"python": "3.9.1.final.0"}}) == (
        f"it has Python 3.9, and this machine Python {here()['Python']}"
    )
    assert why_of_engine({"packages": {"python": f"{here()['Python']}.77.final.0"}}) is None


def test_a_worker_without_the_package_is_unfit_with_both_sides_named() -> None:
    ours = here()["ablation"]

    assert why_of_agent("""ModuleNotFoundError("No module named 'ablation'")""") == (
        f"it has no ablation, and this machine ablation {ours}"
    )
    assert why_of_agent("No module named 'ablation.executors.nodes'") == (
        f"it has another ablation than this machine, {ours}: No module named 'ablation.executors.nodes'"
    )


def test_a_node_whose_folder_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    agent = make_agent(tmp_path / "file" / "node")

    with pytest.raises(Refused, match="its folder cannot be used"):
        agent.hello()


def test_a_check_that_fails_says_why_and_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(tmp_path / "node")

    assert agent.check("cpu", [packed(int, ("7",))]) is None
    assert agent.check("cpu", [packed(int, ("seven",))]) == "invalid literal for int() with base 10: 'seven'"
    monkeypatch.setattr("ablation.executors.nodes.folder.ROOM", 2**62)
    assert "MiB left, and a run needs" in str(agent.check("cpu", []))
    agent.end_all()


# Who is there


class Silent:
    """An engine whose nodes do not answer."""

    async def describe(self, address: str) -> str:
        return address

    async def versions(self, address: str) -> object:
        raise OSError

    async def add_agent(self, address: str) -> str | None:
        raise OSError

    async def ask(self, address: str, verb: str, **asked: Any) -> Any:
        raise OSError

    async def ask_all(self, addresses: object, verb: str, **asked: Any) -> dict[str, Any]:
        raise OSError


class Answering(Silent):
    """An engine with one node, whose agent says what a test has it say, by question."""

    def __init__(self, **said: Any) -> None:
        self._said = said

    async def versions(self, address: str) -> object:
        return {}

    async def add_agent(self, address: str) -> str | None:
        return None

    async def ask(self, address: str, verb: str, **asked: Any) -> Any:
        return self._said[verb]

    async def ask_all(self, addresses: object, verb: str, **asked: Any) -> dict[str, Any]:
        return {"n": self._said[verb]}


def _hello(**said: Any) -> dict[str, Any]:
    versions = {"version": here()["ablation"], "python": here()["Python"], "torch": here()["torch"]}
    return {"agent": "a", "folder": "f", "slots": {"cpu": 1, "cuda": 0}, **versions, **said}


async def _greeted(engine: Answering, notes: list[str]) -> Roster:
    """Return a roster that has greeted the engine's node."""
    roster = Roster(device="auto", note=notes.append)
    roster.see({"n": 1}, engine)
    greeting = roster.nodes["n"].greeting
    assert greeting is not None
    await greeting
    return roster


def _roster(tmp_path: Path, notes: list[str]) -> tuple[Roster, RemoteJob]:
    """Return a roster with one fit node that runs a job."""
    roster = Roster(device="cpu", note=notes.append)
    job = RemoteJob(future=Future(), call=b"", files=Files(home=tmp_path, leaves=(LEAVE,)))
    job.begin_try(0)
    job.is_started = True
    roster.nodes["n"] = Node(address="n", label="host (n)", agent="a", slots=1, is_checked=True, jobs={job.token: job})
    return roster, job


def test_a_node_that_does_not_answer_is_lost_only_once_its_lease_has_run_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    roster, job = _roster(tmp_path, [])

    async def silent_for(seconds: float) -> None:
        while clock.now < seconds:
            clock.now += 1.0
            await roster.ask_for_news(Silent())

    asyncio.run(silent_for(LOST_S - 2.0))
    assert job.lost is None
    assert roster.nodes["n"].free == 0
    asyncio.run(silent_for(LOST_S + 3.0))

    assert job.lost is not None
    assert "has not answered for" in job.lost


def test_time_in_which_nobody_asked_is_not_counted_as_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock)
    roster, job = _roster(tmp_path, [])

    async def suspended() -> None:
        await roster.ask_for_news(Silent())
        clock.now += 3600.0
        await roster.ask_for_news(Silent())

    asyncio.run(suspended())

    assert job.lost is None


def test_a_node_that_the_scheduler_has_no_more_is_lost_with_its_jobs(tmp_path: Path) -> None:
    roster, job = _roster(tmp_path, [])

    roster.see({}, Silent())

    assert ("is gone", {}) == (job.lost, roster.nodes)


def test_an_idle_node_that_goes_is_told_and_an_unfit_one_once(tmp_path: Path) -> None:
    notes: list[str] = []
    roster, _ = _roster(tmp_path, notes)
    roster.nodes["n"].jobs.clear()

    roster.set_unfit(roster.nodes["n"], "it has no disk")
    roster.set_unfit(roster.nodes["n"], "it has no disk")
    roster.see({}, Silent())

    assert ["node host (n) gets no runs: it has no disk"] == notes


def test_a_node_of_another_version_does_not_decide_on_which_device_a_study_is_trained() -> None:
    notes: list[str] = []
    hello = _hello(version="0.0.1", slots={"cpu": 1, "cuda": 1})

    roster = asyncio.run(_greeted(Answering(hello=hello, check=None), notes))

    assert roster.device == "auto"
    assert "gets no runs: it has ablation 0.0.1" in notes[0]


def test_a_node_whose_greeting_cannot_be_read_is_unfit() -> None:
    notes: list[str] = []

    asyncio.run(_greeted(Answering(hello=_hello(slots=None), check=None), notes))

    assert "gets no runs: its answer cannot be read: " in notes[0]


def _news(**said: Any) -> dict[str, Any]:
    return {"serial": 1, "folders": {}, "is_ended": False, "kept": 0, **said}


def _folder_news(**said: Any) -> dict[str, Any]:
    return {LEAVE: {"started": None, "epochs": b"{}", "offset": 0, "is_anew": False, **said}}


@pytest.mark.parametrize(
    "news",
    [
        pytest.param(None, id="none"),
        pytest.param({}, id="empty"),
        pytest.param(_news(serial="one"), id="no number"),
        pytest.param(_news(folders={"begun/study/other": _folder_news()[LEAVE]}), id="of another run"),
        pytest.param(_news(folders=_folder_news(offset=1)), id="with a gap"),
        pytest.param(_news(folders=_folder_news(offset=2**70)), id="beyond any file"),
    ],
)
def test_a_node_whose_news_cannot_be_taken_is_unfit_and_its_run_is_resumed_elsewhere(
    tmp_path: Path, news: object
) -> None:
    notes: list[str] = []
    roster, job = _roster(tmp_path, notes)
    answer = {"agent": "a", "free": {}, "is_ending": False, "jobs": {job.token: news}}

    asyncio.run(roster.ask_for_news(Answering(ask=answer)))

    assert (job.lost or "").startswith("is not to be trusted: ")
    assert "node host (n) gets no runs: " in notes[0]
    assert not (tmp_path / "begun/study/other").exists()
    assert not (tmp_path / LEAVE / "metrics.jsonl").exists() or not (tmp_path / LEAVE / "metrics.jsonl").stat().st_size


def test_news_that_do_not_fit_on_this_disk_are_told_with_the_state_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ablation.executors.nodes.news.FolderNews.write", full)
    roster, job = _roster(tmp_path, [])
    answer = {"agent": "a", "free": {}, "is_ending": False, "jobs": {job.token: _news(folders=_folder_news())}}

    with pytest.raises(DiskFull, match=re.escape(f"cannot write in {tmp_path}: No space left")):
        asyncio.run(roster.ask_for_news(Answering(ask=answer)))


def test_a_full_disk_is_told_with_its_folder() -> None:
    error = pickle.loads(pickle.dumps(DiskFull(Path("/scratch"), "No space left on device")))

    assert (Path("/scratch"), "No space left on device") == (error.folder, error.reason)

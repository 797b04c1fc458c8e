"""Which executor an option asks for, where an engine's scheduler is, and whether others may reach it."""

import json
from pathlib import Path

import pytest

import ablation
from ablation.api.running import Execution
from ablation.errors import ClusterInvalid, EngineMissing, ExecutorUnknown, NetworkOpen
from ablation.executors import EXECUTORS, Kind, Where, kind_and_where
from ablation.executors.addresses import check_network, is_loopback

LOCAL = "tcp://127.0.0.1:8786"
REMOTE = "tcp://10.0.0.5:8786"


def written(folder: Path, content: object) -> Where:
    """Return where a scheduler has written a file of that content."""
    file = folder / "scheduler.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return Where(text=str(file))


@pytest.mark.parametrize("executor", ["cluster", "dask", "processes:here", ":here", ""])
def test_an_executor_that_there_is_not_is_refused_with_those_that_there_are(executor: str) -> None:
    with pytest.raises(ExecutorUnknown, match="there are: auto, inline, processes, dask:WHERE @ --executor"):
        kind_and_where(executor)


def test_an_engine_is_named_with_where_its_scheduler_is() -> None:
    assert ("dask", Where(text=LOCAL)) == kind_and_where(f"dask:{LOCAL}")
    assert ("processes", None) == kind_and_where("processes")


def test_an_engine_that_is_not_installed_is_refused_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXECUTORS, "dask", Kind(make=EXECUTORS["dask"].make, package="of_nobody"))

    with pytest.raises(EngineMissing, match="pip install of_nobody"):
        kind_and_where(f"dask:{LOCAL}")


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("", "it is empty"),
        ("http://127.0.0.1:8786", "no address of a scheduler"),
        ("tcp://127.0.0.1", "no address of a scheduler"),
        ("tcp://:8786", "no address of a scheduler"),
        ("tcp://127.0.0.1:port", "no address of a scheduler"),
        ("tcp://127.0.0.1:8786/path", "no address of a scheduler"),
        ("tls://[::1:8786", "no address of a scheduler"),
        ("127.0.0.1:8786", "an address begins with tcp:// or tls://"),
        (".", "it is a folder"),
    ],
)
def test_what_is_neither_a_file_nor_an_address_is_refused_with_both_forms(where: str, reason: str) -> None:
    with pytest.raises(ClusterInvalid, match=f"{reason}.*dask:scheduler.json.*dask:tls://HOST:8786"):
        Where(text=where)


def test_an_address_is_where_it_says() -> None:
    assert LOCAL == Where(text=LOCAL).address()


def test_the_address_in_a_scheduler_file_is_read_anew_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = Where(text="scheduler.json")

    found = [where.address()]
    for address in (LOCAL, "tcp://127.0.0.1:9000"):
        written(tmp_path, {"type": "Scheduler", "address": address})
        found.append(where.address())

    assert [None, LOCAL, "tcp://127.0.0.1:9000"] == found


@pytest.mark.parametrize("content", ["", '{\n  "type": "Sched'])
def test_a_scheduler_file_that_is_being_written_has_no_address_yet(tmp_path: Path, content: str) -> None:
    assert written(tmp_path, content).address() is None


@pytest.mark.parametrize("content", ["name: quick", "[]", {"workers": {}}, {"address": 5}])
def test_a_file_that_no_scheduler_wrote_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(ClusterInvalid, match="no scheduler wrote that file"):
        written(tmp_path, content).address()


@pytest.mark.parametrize("address", [LOCAL, "tcp://[::1]:8786", "tcp://localhost:8786", "tcp://127.8.0.1:1"])
def test_an_address_of_this_machine_alone_needs_no_certificate(address: str) -> None:
    check_network(address, is_open=False)


@pytest.mark.parametrize("address", [REMOTE, "tcp://0.0.0.0:8786", "tcp://[::]:8786", "tcp://login1:8786"])
def test_an_address_that_others_may_reach_is_refused_without_tls_unless_that_is_accepted(address: str) -> None:
    with pytest.raises(NetworkOpen, match=r"can run code as you.*--insecure-network"):
        check_network(address, is_open=False)

    check_network(address, is_open=True)
    check_network(address.replace("tcp", "tls"), is_open=False)


def test_an_address_in_a_scheduler_file_is_refused_as_one_that_was_typed(tmp_path: Path) -> None:
    where = written(tmp_path, {"address": REMOTE})

    with pytest.raises(NetworkOpen):
        where.address()
    assert REMOTE == Where(text=where.text, is_open=True).address()
    with pytest.raises(NetworkOpen):
        Where(text=REMOTE)


@pytest.mark.parametrize(("host", "expected"), [("localhost", True), ("127.0.0.2", True), ("::1", True), ("me", False)])
def test_loopback_is_what_no_other_machine_reaches(host: str, expected: bool) -> None:
    assert expected is is_loopback(host)


@pytest.mark.parametrize("device", ["cuda:1", "gpu", 1])
def test_a_device_of_its_own_choice_cannot_be_asked_of_an_engine(device: str) -> None:
    with pytest.raises(ablation.AblationError, match="there are: auto, cpu, cuda @ --device"):
        Execution(executor=f"dask:{LOCAL}", device=device)


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_a_kind_of_device_can_be_asked_of_an_engine(device: str) -> None:
    assert device == Execution(executor=f"dask:{LOCAL}", device=device).device


def test_python_refuses_what_the_command_line_refuses() -> None:
    with pytest.raises(NetworkOpen):
        ablation.run("tiny.yaml", executor=f"dask:{REMOTE}")
    with pytest.raises(ablation.AblationError, match="insecure_network must be True or False"):
        ablation.run("tiny.yaml", executor=f"dask:{REMOTE}", insecure_network="yes")  # type: ignore[arg-type]

"""What is printed ends nothing: whatever a terminal can show, and whether anybody reads it to its end."""

import json
import os
import pty
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import SPARED

from ablation.cli import main

OWN = """
name: printed
description: "naïve → 你好 😀"
training: {name: "t.py:train", kind: ä}
factors: {training.kind: [ä, 你好]}
metric: {name: score, direction: maximize, meaningful: 0.01}
seeds: 2
"""
TRAIN = """
import subprocess

def train(settings, seed, report):
    for epoch in range(200):
        print("a line of the training function's own", flush=True)
    subprocess.run(["echo", "a line of a process of its own"], check=True)
    return {"score": 0.5 + seed % 7}
"""
ENCODINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "utf-8"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


def environment(folder: Path, **changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "ABLATION_"))}
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "PYTHONPATH": SPARED}
    return {**kept, **tracking, **changes}


def printing(script: str, folder: Path, *, shell: str = "", **changes: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a few lines with output made unfailing, their output led somewhere by a shell."""
    whole = f"import sys\nfrom ablation.output import make_unfailing\nmake_unfailing()\n{textwrap.dedent(script)}"
    (folder / "script.py").write_text(whole, encoding="utf-8")
    command = f'"{sys.executable}" {folder}/script.py {shell}'
    return subprocess.run(["bash", "-c", command], env=environment(folder, **changes), capture_output=True)


@pytest.mark.parametrize("changes", ENCODINGS)
def test_what_an_encoding_lacks_is_escaped_as_json_has_it(changes: Mapping[str, str], tmp_path: Path) -> None:
    text = "ä 你 😀 \udce9"

    printed = printing(f"print(chr(34) + {text!a} + chr(34))", tmp_path, **changes)

    assert b"" == printed.stderr
    assert text == json.loads(printed.stdout.decode(changes.get("PYTHONIOENCODING", "ascii")))


def test_what_is_written_when_the_reader_has_gone_goes_nowhere(tmp_path: Path) -> None:
    script = """
    import os, subprocess
    for stream in (sys.stdout, sys.stderr):
        for _ in range(50_000):
            print("a line", file=stream)
        stream.flush()
    subprocess.run(["echo", "of another process"], check=True)
    os.close(3)
    """
    ended = printing(
        script, tmp_path, shell='2>&1 3> "$HOME/held" | head -1; exit ${PIPESTATUS[0]}', HOME=str(tmp_path)
    )

    assert (0, b"a line\n", b"") == (ended.returncode, ended.stdout, ended.stderr)


@pytest.mark.parametrize("shell", [">&-", "2>&-", ">&- 2>&-"])
def test_a_stream_that_is_closed_takes_what_is_written(shell: str, tmp_path: Path) -> None:
    script = "sys.stdout.isatty(); print(1, flush=True); print(2, file=sys.stderr)"

    ended = printing(script, tmp_path, shell=shell)

    assert 0 == ended.returncode, ended.stderr
    assert b"Traceback" not in ended.stderr


def test_a_full_disk_is_still_an_error(tmp_path: Path) -> None:
    ended = printing("print(1, flush=True)", tmp_path, shell="> /dev/full")

    assert 0 != ended.returncode
    assert b"No space left on device" in ended.stderr


def test_a_terminal_that_has_gone_ends_nothing(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    script = (
        "import sys; from ablation.output import make_unfailing; make_unfailing(); print('ready', flush=True)\n"
        "sys.stdin.readline(); print(1, flush=True); print(2, file=sys.stderr)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=theirs, stderr=theirs, env=environment(tmp_path)
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        assert b"ready" in os.read(ours, 100)
        os.close(ours)
        process.stdin.close()

    assert 0 == process.returncode


@pytest.fixture
def own_file(tmp_path: Path, empty_store: Path) -> Path:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "t.py").write_text(TRAIN)
    (tmp_path / "s.yaml").write_text(OWN, encoding="utf-8")
    return tmp_path / "s.yaml"


def commanded(folder: Path, shell: str, **changes: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        ["bash", "-c", shell.replace("ablation ", f'"{sys.executable}" -m ablation ')],
        cwd=folder,
        env=environment(folder, **changes),
        capture_output=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_a_study_whose_reader_has_gone_ends_as_it_would_have(executor: str, own_file: Path, tmp_path: Path) -> None:
    shell = f"ablation study s.yaml --workers 1 --executor {executor} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}"

    ended = commanded(tmp_path, shell)
    uri = environment(tmp_path)["MLFLOW_TRACKING_URI"]
    status = CliRunner().invoke(main, ["status", "printed", "--json", "--tracking-uri", uri])

    assert (0, b"") == (ended.returncode, ended.stderr), ended.stderr.decode()
    assert 1 == ended.stdout.count(b"\n")
    (found,) = json.loads(status.stdout)
    assert "FINISHED" == found["status"]
    assert 4 == found["done"]


COMMANDS = [
    "study s.yaml --executor inline",
    "plan s.yaml",
    "status",
    "summarize printed --output report",
    "summarize printed --format markdown",
    "compare printed kind=ä kind=你好",
    "export printed",
    "compare printed kind=ö 你",
    "summarize printöd",
]
ALL = """
import sys
from ablation.cli import main
for words in sys.argv[1:]:
    try:
        main(words.split())
    except SystemExit as ended:
        assert ended.code in (0, 2), words
"""


@pytest.mark.slow
@pytest.mark.parametrize("changes", [ENCODINGS[0], ENCODINGS[3]])
def test_no_encoding_ends_a_command_in_a_traceback(changes: Mapping[str, str], own_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALL, *COMMANDS, "summarize printed --json"]

    ended = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path, **changes), capture_output=True)

    assert 0 == ended.returncode, ended.stderr.decode()
    assert (ended.stdout + ended.stderr).isascii()
    document = ended.stdout[ended.stdout.rindex(b"\n{\n") :]
    assert "naïve → 你好 😀" == json.loads(document)["description"]


@pytest.mark.slow
def test_no_command_minds_that_its_reader_has_gone(own_file: Path, tmp_path: Path) -> None:
    (tmp_path / "all.py").write_text(ALL)
    words = " ".join(f"'{command}'" for command in COMMANDS)

    ended = commanded(tmp_path, f'"{sys.executable}" all.py {words} 2>&1 | true; exit ${{PIPESTATUS[0]}}')

    assert (0, b"", b"") == (ended.returncode, ended.stdout, ended.stderr)

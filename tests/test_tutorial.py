"""The tutorial: its files are written, its commands run in their order, and what it shows comes out."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import PROJECT, command_environment
from forking import Starter

TEXT = (PROJECT / "docs" / "tutorial.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = re.findall(r"^python -m ablation (.*)$", TEXT, re.MULTILINE)
SHOWN = "\n".join(re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)).splitlines()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorials_commands_run_as_they_stand_and_show_what_it_shows(
    tmp_path: Path, data_cache: Path, empty_store: Path, starter: Starter
) -> None:
    environment = command_environment(tmp_path, data_cache, store=empty_store)
    for name, content in FILES.items():
        (tmp_path / name).write_text(content, encoding="utf-8")

    said = [_run(command, environment, tmp_path, starter) for command in COMMANDS]

    lines = {_without_times(line) for output in said for line in output.splitlines()}
    assert [] == [line for line in SHOWN if _without_times(line) not in lines]


def test_the_tutorial_has_files_commands_and_what_they_show() -> None:
    assert ["model.py", "study.yaml"] == list(FILES)
    assert {"plan", "components", "study", "compare", "summarize", "export"} == {line.split()[0] for line in COMMANDS}
    assert SHOWN


def _run(command: str, environment: dict[str, str], folder: Path, starter: Starter) -> str:
    words = ["-m", "ablation", *shlex.split(command)]
    done = starter.run(words, environment=environment, folder=folder, limit_s=600)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def _without_times(line: str) -> str:
    """Return a line without what another machine measures otherwise: times, and how wide they make a column."""
    line = re.sub("─+", "─", line)
    return " ".join(re.sub(r"[Aa]bout [\d.]+ (s|min)( to [\d.]+ (s|min))?", "about", line).split())

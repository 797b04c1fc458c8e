"""The examples of docs/python.md, run as they stand there, in order."""

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT

PAGE = (PROJECT / "docs" / "python.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.usefixtures("vector_figures")
def test_the_examples_run_in_order(
    store_uri: str,
    data_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    monkeypatch.delenv("ABLATION_STATE_DIR", raising=False)
    (tmp_path / ".ablation").mkdir()
    (tmp_path / ".ablation" / "data").symlink_to(data_cache)
    names: dict[str, Any] = {}

    for number, example in enumerate(EXAMPLES, start=1):
        exec(compile(example, f"docs/python.md, example {number}", "exec"), names)

    said = capsys.readouterr().out
    assert "12 done, 0 diverged, 0 failed of 12 runs" in said
    assert "unknown key 'epoch'; did you mean 'epochs'? @ training.epoch" in said
    assert "torch.Size([1, 10])" in said
    assert (tmp_path / "slope.png").exists()
    assert (tmp_path / "report" / "report.html").exists()


def test_the_page_names_all_that_is_exported() -> None:
    import ablation

    assert [] == [name for name in ablation.__all__ if f"ablation.{name}" not in PAGE and name != "StudyResult"]


def test_the_page_names_each_argument_of_run() -> None:
    import inspect

    import ablation

    assert [] == [name for name in inspect.signature(ablation.run).parameters if name not in PAGE]

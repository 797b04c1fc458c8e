"""What processes of tests are spared: it has an effect, and what is trained is the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SPARED
from sqlalchemy import create_engine, text

from ablation import drawing

STEP = """
weight = torch.nn.Parameter(torch.ones(3))
optimizer = torch.optim.Adam([weight], lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    (weight * torch.arange(3.0)).sum().backward()
    optimizer.step()
"""


@pytest.mark.slow
def test_optimizers_take_the_same_steps_without_torchs_compiler() -> None:
    code = f"import sys, torch\n{STEP}\nprint(weight.tolist(), 'torch._dynamo' in sys.modules)"
    found = subprocess.check_output([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": SPARED}, text=True)

    names = {"torch": torch}
    exec(STEP, names)
    assert f"{names['weight'].tolist()} False\n" == found


def test_sqlite_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'any.db'}")
    with engine.connect() as connection:
        found = connection.execute(text("PRAGMA synchronous")).scalar()
    engine.dispose()

    assert 0 == found


def test_tests_themselves_draw_figures() -> None:
    assert drawing.save.__module__ == "ablation.drawing"

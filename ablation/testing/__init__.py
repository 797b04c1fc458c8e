"""The tests that every executor and every tracker passes, for those who write one; they need pytest.

In a test file of yours, inherit a contract, and return what you made from its fixture::

    from ablation.testing import WorkersContract

    class TestMyExecutor(WorkersContract):
        @pytest.fixture
        def executor(self):
            with MyExecutor(workers=2) as made:
                yield made

`pytest` then runs each rule of the contract on it. `ExecutorContract` holds for every executor, `WorkersContract` for
one with processes of its own, `TrackerContract` for a tracker. Nothing in `ablation` imports this package.
"""

import pytest

pytest.register_assert_rewrite("ablation.testing.executors", "ablation.testing.trackers")

from ablation.testing.executors import ExecutorContract, WorkersContract  # noqa: E402 - rewritten from here on
from ablation.testing.plans import make_plan  # noqa: E402
from ablation.testing.trackers import TrackerContract  # noqa: E402

__all__ = ["ExecutorContract", "TrackerContract", "WorkersContract", "make_plan"]

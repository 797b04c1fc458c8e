"""Gives every Python process that has this folder on its path a simulated GPU, unless there is a real one.

    PYTHONPATH=tests/simulated_gpu python -m pytest -o addopts= tests/test_training_gpu.py

Where it cannot be had, by what the machine is, there is none, and the tests are skipped with that reason.
"""

import torch

if not torch.cuda.is_available():
    import simulated_gpu

    if simulated_gpu.why_not() is None:
        try:
            simulated_gpu.install()
        except Exception as error:
            raise SystemExit(f"the simulated GPU could not be installed: {error!r}") from error

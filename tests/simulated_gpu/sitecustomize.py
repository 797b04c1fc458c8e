"""Gives every Python process that has this folder on its path a simulated GPU, as long as there is no real one.

PYTHONPATH=tests/simulated_gpu python -m pytest -m gpu tests/test_training_gpu.py
"""

import torch

if not torch.cuda.is_available():
    import simulated_gpu

    simulated_gpu.install()

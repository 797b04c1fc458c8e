"""Ablation studies of neural networks: which parts matter, by how much, how surely, at what cost."""

__version__ = "0.1.0"

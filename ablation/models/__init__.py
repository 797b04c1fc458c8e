"""Builds a variant's model from the `model` section of its settings, and measures its size without running it."""

from ablation.models.cnn import Cnn, build_model
from ablation.models.summary import summarize_model

__all__ = ["Cnn", "build_model", "summarize_model"]

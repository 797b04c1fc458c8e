"""Builds a variant's model from the `model` section of its settings, edits it, and measures it without training it."""

from ablation.models.cnn import Cnn, build_model
from ablation.models.components import edit_model, list_components
from ablation.models.replacements import replacement
from ablation.models.summary import summarize_model

__all__ = ["Cnn", "build_model", "edit_model", "list_components", "replacement", "summarize_model"]

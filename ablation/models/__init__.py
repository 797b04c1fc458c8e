"""Builds a variant's model from the `model` section of its settings, edits it, and measures it without training it."""

from ablation.models.build import build_model
from ablation.models.changes import ModelChanges, model_changes
from ablation.models.cnn import Cnn
from ablation.models.components import edit_model, list_components
from ablation.models.layout import fastest_layout
from ablation.models.probe import example_input
from ablation.models.replacements import replacement
from ablation.models.summary import summarize_model
from ablation.models.torchvision_models import build_torchvision
from ablation.models.weights import load_weights

__all__ = [
    "Cnn",
    "ModelChanges",
    "build_model",
    "build_torchvision",
    "edit_model",
    "example_input",
    "fastest_layout",
    "list_components",
    "load_weights",
    "model_changes",
    "replacement",
    "summarize_model",
]

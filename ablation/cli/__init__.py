"""The command line: thin commands over `ablation.api` and the pipeline. Only click is imported until a command runs."""

from ablation.cli import doctor, recorded, studies, upkeep
from ablation.cli.group import main

__all__ = ["doctor", "main", "recorded", "studies", "upkeep"]

"""Checkpoints, for trainers. They live below `compat`, which gives them to RecBole's trainers."""

from dataset_tools.atomic import atomic_path
from recbole_cdr_mm.checkpoint import load_checkpoint, plain_config, save_checkpoint

__all__ = ["atomic_path", "load_checkpoint", "plain_config", "save_checkpoint"]

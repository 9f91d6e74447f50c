"""Reads what `scripts/demo.py` runs, without its flags, which a process defines once."""

import ast
import pathlib

from keras_tkd.config import DistillConfig
from keras_tkd.config.flagfile import read_flags

ROOT = pathlib.Path(__file__).parents[1]
FLAGS = ROOT / "flags" / "digits"


def read_constants():
    """Returns the constants of the demo."""
    module = ast.parse((ROOT / "scripts" / "demo.py").read_text())
    assigned = {node.targets[0].id: node.value for node in module.body if isinstance(node, ast.Assign)}
    return {name: ast.literal_eval(assigned[name]) for name in ("METHODS", "SEEDS")}


def read_shared():
    """Returns the `DistillConfig` of what all of its methods share."""
    return DistillConfig(**read_flags(DistillConfig, (FLAGS / "tkd.flags").read_text()))

"""Outputs that a loss reads: the final one, that of one layer, or a list of several."""

import tensorflow as tf

__all__ = ["as_list", "as_shape_list", "collect_outputs", "select"]


def select(outputs: dict[str, tf.Tensor], layers):
    """Picks outputs by `teacher_layers` or `student_layers`: one, or a list where a list of layers is named."""
    if isinstance(layers, list):
        return [outputs[name] for name in layers]
    return outputs["logits" if layers is None else layers]


def collect_outputs(losses: list, side: str) -> list[str]:
    """Collects the names of all outputs that losses read, `"logits"` for the final one.

    Args:
        losses: list of `DistillationLoss`.
        side: `"teacher_layers"` or `"student_layers"`.
    """
    return sorted({name for loss in losses for name in as_list(getattr(loss, side) or "logits")})


def as_list(outputs):
    """Returns one output, or a list of outputs, as a list."""
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def as_shape_list(shapes: tuple | list[tuple]) -> list[tuple]:
    """Returns the shape of one output, or the list of those of several, as a list."""
    return list(shapes) if isinstance(shapes, list) else [tuple(shapes)]

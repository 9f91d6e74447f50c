"""Layers that losses read of a run's models, where these call them otherwise than this package's models do."""

from keras_tkd.losses.outputs import collect_outputs
from keras_tkd.teachers.ensemble import TeacherEnsemble
from keras_tkd.utils.layer_outputs import has_output
from keras_tkd.utils.standard_layers import MEANINGS, choose_layers

__all__ = ["choose_run_layers"]


def choose_run_layers(config, inputs) -> dict[str, dict[str, str]]:
    """Chooses the layers that losses read, in models that do not call them as this package's own models do.

    Args:
        config: resolved `DistillConfig`.
        inputs: the run's `Inputs`.

    Returns:
        See `Inputs.layers`.

    Raises:
        ValueError: the teachers of an ensemble have no layer of one name for what a loss reads; with their files.
    """
    losses = inputs.make_losses(config)[0] if config.has_teacher else []
    chosen = {}
    for role, model in (("teacher", inputs.teacher), ("student", inputs.student)):
        side = f"{role}_layers"
        ensemble = isinstance(model, TeacherEnsemble)
        # Of another average losses can read no layers, which the Distiller says. A teacher of whom only outputs are
        # given has those that the file names.
        if not losses or model is None or (ensemble and model.average != "losses"):
            continue
        names = collect_outputs(losses, side)
        chosen[side] = _choose_common(model.teachers, names, config) if ensemble else choose_layers(model, names)
        who = "teachers have" if ensemble else f"{role} has"
        for name, layer in chosen[side].items():
            print(f"The {who} no layer '{name}': losses read {MEANINGS[name]}, '{layer}' (--{side} names others)")
    return chosen


def _choose_common(teachers, names, config):
    """Chooses the layers of an ensemble's teachers, which are read by one name for all."""
    files = config.teacher_path
    if len(files) < len(teachers):
        files = [f"{files[0]}, number {number}" for number in range(len(teachers))]  # a saved ensemble
    chosen = [choose_layers(teacher, names) for teacher in teachers]
    common = {}
    for name in names:
        layer = name.partition(":")[0]  # without the ":pre_activation" that may follow
        found = [
            name if name == "logits" or has_output(teacher, layer) else own.get(name)
            for teacher, own in zip(teachers, chosen, strict=True)
        ]
        if None in found or len(set(found)) > 1:
            has = "; ".join(
                f"{file}: {'none' if each is None else repr(each)}" for file, each in zip(files, found, strict=True)
            )
            raise ValueError(
                "Of an ensemble's teachers losses read a layer by one name for all. "
                f"Received: '{name}', for which the teachers have: {has}. Name one that all have by --teacher_layers, "
                "or save the models with layers of one name"
            )
        if found[0] != name:
            common[name] = found[0]
    return common

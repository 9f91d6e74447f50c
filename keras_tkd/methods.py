"""METHODS: what each distillation method is, as plain data.

A method is the terms that are added to the student's loss on the labels. A term names a loss class of
`keras_tkd.losses`, its published weight, and its arguments. Importing this module imports no Keras.
"""

import dataclasses
import importlib


@dataclasses.dataclass(frozen=True)
class Term:
    """One distillation loss: class name in `keras_tkd.losses`, weight, and constructor arguments."""

    loss: str
    weight: float
    arguments: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Method:
    """A distillation method.

    Args:
        summary: one line, with the paper.
        terms: its losses.
        student_loss_weight: weight of the loss on the labels.
    """

    summary: str
    terms: tuple[Term, ...] = ()
    student_loss_weight: float = 1.0

    def reads(self, argument):
        """Whether a term takes this argument of its own (`"temperature"`, `"margin"`)."""
        return any(argument in term.arguments for term in self.terms)

    @property
    def uses_negatives(self):
        return self.reads("margin")


METHODS = {
    "baseline": Method("The student alone, on the labels: what every distilled student is compared with."),
    "kd": Method(
        "Soft targets (Hinton et al., 2015).",
        (Term("SoftTargets", 0.9, {"temperature": 4.0}),),
        student_loss_weight=0.1,
    ),
    "logits": Method(
        "Squared error on the logits (Ba & Caruana, 2014).",
        (Term("LogitRegression", 0.1),),
    ),
    "tkd": Method(
        "Triplet loss with the teacher as the anchor (Oki et al., 2020).",
        (Term("TripletDistillation", 2.0, {"margin": 5.0}),),
    ),
    "tkd_soft": Method(
        "Triplet loss and soft targets (Oki et al., variant of 2022).",
        (
            Term("SoftTargets", 1.0, {"temperature": 1.0}),
            Term("TripletDistillation", 2.0, {"margin": 5.0}),
        ),
    ),
}


def make_losses(
    method, *, temperature=None, margin=None, weights=None, seed=0, teacher_layers=None, student_layers=None
):
    """The losses of a method and their weights.

    Args:
        method: a name in `METHODS`.
        temperature, margin: in place of the published values, where a loss of the method reads them.
        weights: a weight for each term, in place of the published ones.
        seed: seed of losses that draw at random.
        teacher_layers, student_layers: what the losses read, in place of the final outputs.

    Returns:
        `(losses, weights)`, lists of equal length.

    Raises:
        ValueError: an argument that no loss of the method reads; weights of the wrong number.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}. Received: method={method!r}")
    losses_module = importlib.import_module("keras_tkd.losses")
    terms = METHODS[method].terms
    given = {"temperature": temperature, "margin": margin}
    for name, value in given.items():
        if value is not None and not METHODS[method].reads(name):
            raise ValueError(f"Method '{method}' reads no `{name}`. Received: {name}={value}")
    if weights is not None and len(weights) != len(terms):
        names = [term.loss for term in terms]
        raise ValueError(f"Method '{method}' has {len(terms)} distillation losses {names}. Received weights: {weights}")
    losses = []
    for term in terms:
        arguments = term.arguments | {k: v for k, v in given.items() if v is not None and k in term.arguments}
        if "margin" in arguments:
            arguments["seed"] = seed
        loss_class = getattr(losses_module, term.loss)
        losses.append(loss_class(**arguments, teacher_layers=teacher_layers, student_layers=student_layers))
    return losses, list(weights) if weights is not None else [term.weight for term in terms]

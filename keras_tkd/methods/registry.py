"""The distillation methods, as plain data.

A method is the list of terms that are added to the student's loss on the labels. A term names a loss class of
`keras_tkd.losses`, its published weight, and its arguments. Importing this module imports no Keras.
"""

import dataclasses

__all__ = ["METHODS", "Method", "Online", "Term", "as_layer_argument"]


@dataclasses.dataclass(frozen=True)
class Term:
    """One distillation loss.

    Args:
        loss: class name in `keras_tkd.losses`.
        weight: its published weight.
        arguments: constructor arguments.
        needs: constructor arguments that come from the run: `"seed"`, `"labels"` (class ids of the training samples).
        layers: names of the layers that it reads in both models, as this package's models name them; empty for the
            final output.
        extra_images: the images that may be drawn beside each image for it, `"negatives"` or `"partners"`; or None.
        one_class: whether it takes the label for the one class of its image, which a mixed image has not; as
            `takes_one_class` of the loss says.
        binary: class name of the loss that takes its place, with the same arguments, where an image may have several
            classes; None where there is none.
    """

    loss: str
    weight: float
    arguments: dict = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    extra_images: str | None = None
    one_class: bool = False
    binary: str | None = None

    @property
    def is_of_one_class(self):
        """Whether it is of images of one class each: of their label, others of their class, or a softmax."""
        return self.one_class or self.extra_images is not None or not (self.binary or self.layers)


@dataclasses.dataclass(frozen=True)
class Online:
    """Training of a teacher that learns together with the student (`keras_tkd.TriKD`).

    Args:
        anchored: whether a frozen anchor keeps the teacher near it.
        teacher_loss_weight, anchor_weight, peer_weight: weights of the teacher's losses on the labels, towards the
            anchor, and towards the student.
        student_term_reaches_teacher: whether the gradient of the student's distillation loss reaches the teacher, too.
    """

    anchored: bool
    teacher_loss_weight: float = 1.0
    anchor_weight: float = 1.0
    peer_weight: float = 1.0
    student_term_reaches_teacher: bool = False


@dataclasses.dataclass(frozen=True)
class Method:
    """A distillation method.

    Args:
        summary: one line, with the paper.
        terms: its losses.
        student_loss_weight: weight of the student's loss on the labels.
        warmup_epochs: epochs over which the weights of its losses rise linearly from 0.
        online: an `Online` for a teacher that learns together with the student; None for a trained, frozen teacher.
    """

    summary: str
    terms: tuple[Term, ...] = ()
    student_loss_weight: float = 1.0
    warmup_epochs: int = 0
    online: Online | None = None

    @property
    def layers(self):
        """Names of the layers that its losses read, if all read the same ones; else empty."""
        read = {term.layers for term in self.terms}
        return next(iter(read)) if len(read) == 1 else ()

    @property
    def extra_images(self):
        """The images that may be drawn beside each image: a set of `"negatives"` and `"partners"`."""
        return {term.extra_images for term in self.terms} - {None}

    def for_several_classes(self):
        """Returns the method for images that may have several classes: with the binary form of each term that has one.

        Terms of layers stay as they are; so do, for whoever refuses them, those that `is_of_one_class`.
        """
        terms = (dataclasses.replace(term, loss=term.binary or term.loss) for term in self.terms)
        return dataclasses.replace(self, terms=tuple(terms))

    def reads(self, argument):
        """Returns whether a term has this argument of its own (`"temperature"`, `"margin"`)."""
        return any(argument in term.arguments for term in self.terms)


# For batches without drawn negatives, which the losses then pick from the batch. The papers draw them with the data.
_MINING = {"miner": "random", "negative_classes": "labels"}
_TRIPLETS = Term("TripletDistillation", 2.0, {"margin": 5.0, **_MINING}, needs=("seed",), extra_images="negatives")
_EMBEDDING = ("embedding",)
_STAGES = ("stage1", "stage2", "stage3")

# Weights and numbers are those that the papers or their authors' code publish, unless the summary says otherwise.
METHODS = {
    "baseline": Method("The student alone, on the labels: what every distilled student is compared with."),
    "kd": Method(
        "Soft targets (Hinton et al., 2015).",
        # The factor T^2 is in the loss.
        (Term("SoftTargets", 0.9, {"temperature": 4.0}, binary="BinarySoftTargets"),),
        student_loss_weight=0.1,
    ),
    "lskd": Method(
        "Soft targets of standardized logits (Sun et al., 2024).",
        (Term("SoftTargets", 9.0, {"temperature": 2.0, "standardize": True, "name": "lskd"}),),
        student_loss_weight=0.1,
    ),
    "hard": Method(
        "The class that the teacher names, as a second label (Touvron et al., 2021).",
        (Term("HardTargets", 0.5),),
        student_loss_weight=0.5,
    ),
    "logits": Method(
        "Squared error on the logits (Ba & Caruana, 2014).",
        (Term("LogitRegression", 0.1),),
    ),
    "tkd": Method(
        "Triplet loss with the teacher as the anchor (Oki et al., 2020).",
        (_TRIPLETS,),
    ),
    "tkd_soft": Method(
        "Triplet loss and soft targets (Oki et al., variant of 2022).",
        (Term("SoftTargets", 1.0, {"temperature": 1.0}), _TRIPLETS),
    ),
    "pairs": Method(
        "Pair (Siamese) loss with the teacher on one side (after Oki et al., 2020; loss and weight are our reading).",
        (Term("PairDistillation", 0.1, {"margin": 5.0, **_MINING}, needs=("seed",), extra_images="partners"),),
    ),
    "sp": Method(
        "Similarity-preserving distillation (Tung & Mori, 2019).",
        (Term("SimilarityPreserving", 3000.0, layers=("features",)),),
    ),
    "rkd": Method(
        "Relational distillation of distances and angles (Park et al., 2019).",
        (Term("RelationalDistance", 25.0, layers=_EMBEDDING), Term("RelationalAngle", 50.0, layers=_EMBEDDING)),
    ),
    "pkt": Method(
        "Probabilistic knowledge transfer (Passalis & Tefas, 2018).",
        (Term("ProbabilisticTransfer", 30000.0, layers=_EMBEDDING),),
    ),
    "cc": Method(
        "Correlation congruence (Peng et al., 2019).",
        (Term("CorrelationCongruence", 100.0, layers=_EMBEDDING),),
    ),
    "at": Method(
        "Attention transfer (Zagoruyko & Komodakis, 2017).",
        (Term("AttentionTransfer", 1000.0, layers=_STAGES),),
    ),
    "fitnet": Method(
        "Hints from a middle layer (Romero et al., 2015).",
        (Term("Hint", 100.0, layers=("stage2",)),),
    ),
    "vid": Method(
        "Variational information distillation (Ahn et al., 2019).",
        (Term("VariationalInformation", 1.0, layers=("stage2",)),),
    ),
    "fsp": Method(
        "Flow of the solution procedure (Yim et al., 2017).",
        (Term("FlowOfSolution", 50.0, layers=("stage1", "stage2")),),
    ),
    "crd": Method(
        "Contrastive representation distillation (Tian et al., 2020).",
        (Term("ContrastiveRepresentation", 0.8, needs=("labels", "seed"), layers=_EMBEDDING, one_class=True),),
    ),
    "dkd": Method(
        "Decoupled soft targets (Zhao et al., 2022).",
        (Term("DecoupledTargets", 1.0, {"temperature": 4.0, "alpha": 1.0, "beta": 8.0}, one_class=True),),
        warmup_epochs=20,
    ),
    "dist": Method(
        "Correlation of predictions within samples and classes (Huang et al., 2022).",
        (Term("DIST", 2.0, {"temperature": 4.0}),),
    ),
    "nkd": Method(
        "Normalized soft targets (Yang et al., 2023).",
        (Term("NormalizedTargets", 1.0, {"temperature": 1.0, "gamma": 1.5}, one_class=True),),
    ),
    "dml": Method(
        "Mutual learning of teacher and student (Zhang et al., 2018).",
        (Term("SoftTargets", 1.0, {"temperature": 1.0}),),
        online=Online(anchored=False),
    ),
    "trikd": Method(
        "A teacher that learns with the student, near an anchor (after Wang et al., 2023; losses and weights are our "
        "reading).",
        (Term("SoftTargets", 1.0, {"temperature": 1.0}),),
        online=Online(anchored=True),
    ),
}


def as_layer_argument(layers):
    """Returns names of layers in the form that losses take: one name as a string, several as a list, none as None."""
    layers = list(layers or ())
    return layers if len(layers) > 1 else next(iter(layers), None)

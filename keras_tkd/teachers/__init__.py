"""Teachers made ready, read, and joined to ensembles."""

from keras_tkd.teachers.ensemble import TeacherEnsemble
from keras_tkd.teachers.heads import fit_to_images, list_body, list_left_out, with_new_head
from keras_tkd.teachers.logits import (
    check_logits,
    ends_in_sigmoid,
    ends_in_softmax,
    freeze,
    hides_end,
    logits_model,
    with_classes,
    with_softmax,
)
from keras_tkd.teachers.preprocessing import with_preprocessing
from keras_tkd.utils.pixel_scaling import PREPROCESSING

__all__ = [
    "PREPROCESSING",
    "TeacherEnsemble",
    "check_logits",
    "ends_in_sigmoid",
    "ends_in_softmax",
    "fit_to_images",
    "freeze",
    "hides_end",
    "list_body",
    "list_left_out",
    "logits_model",
    "with_classes",
    "with_new_head",
    "with_preprocessing",
    "with_softmax",
]

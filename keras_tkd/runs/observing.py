"""Collects, while a run's models are in memory, what its report shows of them."""

import contextlib

import numpy as np
from PIL import Image

from keras_tkd import data, evaluation
from keras_tkd.evaluation.calibration import compute_confidences
from keras_tkd.reports.observations import (
    BASELINE_ROLE,
    STUDENT_ROLE,
    TEACHER_ROLE,
    Observations,
    write_observations,
)
from keras_tkd.runs.layout import OBSERVATIONS
from keras_tkd.teachers.ensemble import flatten_ensemble

__all__ = ["Observer"]

_EMBEDDED = 300  # images; as many points as a chart shows, and t-SNE takes a second
_PICTURED = 8  # of each way to differ
_TRIPLETS = 6
_SIDE = 64  # pixels that a picture has at most


class Observer:
    """Collects what the models of a run say of the test images, and writes it once, when the run ends.

    It draws no number from any stream of the training and changes no model: a run ends in the same bits without it.

    Args:
        run: the `Run`.
        inputs: its `Inputs`, before anything is trained.
    """

    def __init__(self, run, inputs):
        self._run, self._inputs, self._splits, config = run, inputs, inputs.splits, run.config
        self._layers = {role: config.embedding_layer for role in (BASELINE_ROLE, STUDENT_ROLE)}
        if config.has_teacher:
            self._layers[TEACHER_ROLE] = config.teacher.embedding_layer
        self._classes, self._confidences, self._embeddings, self._logits = {}, {}, {}, {}
        self._triplets, self._distances = np.empty((0, 2), "int64"), {}
        # Where all classes are in the open set, no model says anything of the test images; and of several classes there
        # is no one class that a model names.
        self._observes = bool(self._splits.num_classes) and not self._splits.multi_label
        if not self._observes:
            return
        samples = len(self._splits.test_labels)
        # Evenly over all: of images that are stored class by class, the first are of one class.
        self._embedded = np.unique(np.linspace(0, samples - 1, min(samples, _EMBEDDED)).round().astype("int64"))
        self._images = data.take_images(self._splits.test_images, self._embedded)
        if any(term.loss == "TripletDistillation" for term in config.recipe.terms):
            self._triplets = _choose_triplets(np.asarray(self._splits.test_labels), self._embedded)
            self._before = self._compute_logits(inputs.student)

    def add_teacher(self, teacher):
        """Takes what is shown of a `MeasuredTeacher`, whose model may be gone when the run ends."""
        if self._observes and teacher is not None and teacher.logits is not None:
            self._add(TEACHER_ROLE, teacher.logits, teacher.model)

    def write(self, student, baseline=None, teacher=None):
        """Writes all of it into the run's folder.

        Args:
            student: the trained model.
            baseline: the student alone, where this run trained it.
            teacher: a teacher that learned with the student; None where `add_teacher` was given one.
        """
        if not self._observes:
            return
        for role, model in ((TEACHER_ROLE, teacher), (BASELINE_ROLE, baseline), (STUDENT_ROLE, student)):
            if model is not None:
                self._add(role, self._inputs.compute_logits(model), model)
        if len(self._triplets) and TEACHER_ROLE in self._logits:
            for time, logits in (("before", self._before), ("after", self._logits[STUDENT_ROLE])):
                self._distances[time] = self._measure_triplets(logits)
        pictured, pictures = self._picture()
        observations = Observations(
            labels=np.asarray(self._splits.test_labels).astype("int32"),
            classes=self._classes,
            confidences=self._confidences,
            embedded=self._embedded,
            embeddings=self._embeddings,
            pictured=pictured,
            pictures=pictures,
            triplets=self._triplets if self._distances else self._triplets[:0],
            distances=self._distances,
        )
        try:
            write_observations(self._run.path / OBSERVATIONS, observations)
        except OSError as error:
            # What is trained is worth more than what is drawn of it.
            print(f"Warning: what a report shows of this run's models could not be written: {error}", flush=True)

    def _select(self, role):
        """Returns the `Splits` of the images that a model sees in its role."""
        return self._splits.for_teacher if role == TEACHER_ROLE else self._splits

    def _add(self, role, logits, model):
        self._classes[role] = logits.argmax(-1).astype("int32")
        self._confidences[role] = compute_confidences(logits)
        self._logits[role] = embeddings = logits[self._embedded]
        layer = self._layers[role] or evaluation.EMBEDDING
        # An ensemble has no layer of its own, and another's model may have none of that name: its outputs are shown.
        if model is not None and len(flatten_ensemble(model)) == 1:
            with contextlib.suppress(ValueError):
                images = self._images
                if self._select(role) is not self._splits:
                    images = data.take_images(self._select(role).test_images, self._embedded)
                embeddings = evaluation.embeddings(model, images, layer)
        self._embeddings[role] = embeddings.reshape(len(embeddings), -1).astype("float32")

    def _compute_logits(self, model):
        return evaluation.logits(model, self._images)

    def _measure_triplets(self, logits):
        """Distances of the teacher's outputs for anchors to a student's for these and the negatives, as the loss's."""
        anchor, negative = np.searchsorted(self._embedded, self._triplets).T
        teacher = self._logits[TEACHER_ROLE][anchor]
        return np.stack([np.linalg.norm(teacher - logits[other], axis=-1) for other in (anchor, negative)], axis=1)

    def _picture(self):
        """Returns ids of test images and their pictures: those on which teacher and student differ, and of triplets."""
        ids = [np.empty(0, "int64")] + [self._triplets.ravel()] * bool(self._distances)
        if TEACHER_ROLE in self._classes:
            labels = np.asarray(self._splits.test_labels)
            right = {role: self._classes[role] == labels for role in (TEACHER_ROLE, STUDENT_ROLE)}
            for better, worse in ((TEACHER_ROLE, STUDENT_ROLE), (STUDENT_ROLE, TEACHER_ROLE)):
                differing = np.flatnonzero(right[better] & ~right[worse])
                # Where the one that is wrong is the surest; of equal ones the first.
                order = np.argsort(-self._confidences[worse][differing], kind="stable")
                ids.append(differing[order[:_PICTURED]])
        ids = np.unique(np.concatenate(ids)).astype("int64")
        if self._splits.image_shape[-1] not in (1, 3) or not len(ids):
            return ids, np.empty((0, 0, 0, 0), "uint8")
        return ids, np.stack([_shrink(image) for image in data.take_images(self._splits.test_images, ids)])


def _choose_triplets(labels, ids):
    """Returns ids of anchors, evenly over `ids`, each with that of an image of another class, `(triplets, 2)`."""
    generator = np.random.default_rng(0)
    triplets = []
    for anchor in ids[np.unique(np.linspace(0, len(ids) - 1, min(len(ids), _TRIPLETS)).round().astype(int))]:
        others = ids[labels[ids] != labels[anchor]]
        if len(others):
            triplets.append((anchor, generator.choice(others)))
    return np.array(triplets, "int64").reshape(-1, 2)


def _shrink(image):
    """Returns an image as uint8, its longer side 64 pixels at most."""
    pixels = np.clip(np.rint(image), 0, 255).astype("uint8")
    height, width = pixels.shape[:2]
    if max(height, width) <= _SIDE:
        return pixels
    size = tuple(max(1, round(length * _SIDE / max(height, width))) for length in (width, height))
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    return np.asarray(picture.resize(size, Image.Resampling.BOX)).reshape(*size[::-1], -1)

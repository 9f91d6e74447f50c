"""Inputs of a run: images, student, teacher, another run's baseline."""

import dataclasses
import sys

import keras
import numpy as np

from keras_tkd import data, evaluation, models, teachers
from keras_tkd.distillation.method_losses import make_losses
from keras_tkd.losses.outputs import collect_outputs
from keras_tkd.methods.registry import as_layer_argument
from keras_tkd.reports.schema import ModelResult
from keras_tkd.runs.baseline import check_baseline_data, find_baseline_file, read_baseline
from keras_tkd.runs.checks import check_embeddings, check_together, check_unseen
from keras_tkd.runs.cluster import Cluster
from keras_tkd.runs.early_checks import check_without_data
from keras_tkd.runs.images import describe_images, hash_data, load_data, load_splits
from keras_tkd.runs.layer_choice import choose_run_layers
from keras_tkd.runs.profiling import check_profiled_steps
from keras_tkd.runs.teacher_files import load_teacher, without_activation
from keras_tkd.runs.teacher_outputs import GivenOutputs, load_teacher_outputs, open_outputs
from keras_tkd.teacher_cache.fingerprints import hash_layers, hash_weights

__all__ = [
    "Inputs",
    "build_model",
    "load_distillation_inputs",
    "load_evaluation_inputs",
    "load_teacher_inputs",
]


@dataclasses.dataclass
class Inputs:
    """Inputs of a run, loaded and checked to go together.

    Attributes:
        splits: the images, a `data.Splits`.
        student: the untrained student, or the model that `evaluate` measures; None where there is none.
        teacher: the trained teacher, or the untrained one where the run is to train it; None where there is none, and
            once it was taken.
        outputs: `GivenOutputs`, those of a teacher that is not there itself; None where there are none.
        baseline: `ModelResult` of the student alone, out of another run; None where this run is to train it.
        baseline_predictions: what the student alone of that run says of the test images, as labels have it; None where
            its file is not there.
        anchor: the student alone of that run, where it is an online teacher's anchor.
        layers: dict `"teacher_layers"`, `"student_layers"` -> dict from the name that this package's models give to a
            layer to that of a model which calls it otherwise.
        data: hashes of the images and labels by what they are for, see `hash_data`; None where nothing is trained.
        fingerprint: hash of the weights of a teacher that was trained elsewhere, or of the file of its outputs; None
            where there is neither.
        architecture: hash of that teacher's layers and their settings: with the same weights but another scaling or
            activation it says something else.
        workers: the run's `Cluster`, whose processes share out what is computed of many images; None for this one.
    """

    splits: data.Splits
    student: keras.Model | None = None
    teacher: keras.Model | None = None
    outputs: GivenOutputs | None = None
    baseline: ModelResult | None = None
    baseline_predictions: np.ndarray | None = None
    anchor: keras.Model | None = None
    fingerprint: str | None = None
    architecture: str | None = None
    layers: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)
    data: dict[str, str] | None = None
    workers: Cluster | None = None
    _logits: dict = dataclasses.field(default_factory=dict, init=False, repr=False)

    def compute_logits(self, model):
        """Returns the logits of a trained model for the test images: it is run once, however many ask for them."""
        # By the model itself, which stays: once it is gone, another might have its id.
        if model not in self._logits:
            self._logits[model] = evaluation.logits(model, self.splits.test_images, workers=self.workers)
        return self._logits[model]

    def take_teacher(self):
        """Returns the teacher and forgets it: a large model, which is freed as soon as a run no longer needs it."""
        teacher, self.teacher = self.teacher, None
        return teacher

    def make_losses(self, config):
        """Makes what a `Distiller` takes of a resolved configuration: losses, their weights, that of the labels' loss.

        Each call makes new losses: some have layers, which belong to one training.
        """
        in_batch = {"miner": config.miner, "negative_classes": config.negative_classes}
        losses, weights = make_losses(
            config.recipe,
            distillation_loss_weights=config.distillation_loss_weights,
            teacher_layers=as_layer_argument(config.teacher_layers),
            student_layers=as_layer_argument(config.student_layers),
            substitutes=self.layers,
            seed=config.seed,
            labels=self.splits.train_labels,
            temperature=config.temperature,
            margin=config.margin,
            # Drawn negatives are in the batches already: the pipeline chose them by class.
            **(in_batch if config.negatives == "in_batch" else {}),
        )
        return losses, weights, config.student_loss_weight


def load_teacher_inputs(config, splits=None, workers=None):
    """Loads the `Inputs` of a run that trains a teacher; everything that can be refused is refused here.

    Args:
        config: `TeacherTrainingConfig`.
        splits: its data, where they are loaded already.
        workers: see `Inputs`.
    """
    check_without_data(config)
    splits = splits or load_splits(config)
    check_profiled_steps(config, splits)
    teacher = build_model(config.teacher_model, splits, config.seed, "Teacher", config.teacher_model_weights)
    check_embeddings(teacher, config.embedding_layer, splits)
    return Inputs(splits, teacher=teacher, data=hash_data(splits), workers=workers)


def load_distillation_inputs(config, splits=None, workers=None):
    """Loads the `Inputs` of a run that distils; everything that can be refused is refused here.

    Args:
        config: resolved `DistillConfig`.
        splits: its data, where they are loaded already.
        workers: see `Inputs`.

    Raises:
        ValueError: another run's baseline of another budget or other data; images, models and losses that do not go
            together.
        FileNotFoundError: a file or a data set that is not there.
    """
    check_without_data(config)
    baseline = read_baseline(config)
    baseline_file = find_baseline_file(config, needed=config.anchor == "trained") if baseline else None
    outputs = open_outputs(config)
    splits = splits or load_splits(config)
    check_profiled_steps(config, splits)
    student = build_model(config.student_model, splits, config.seed, "Student", config.student_model_weights)
    inputs = Inputs(splits, student, baseline=baseline, data=hash_data(splits), workers=workers)
    if workers is not None:
        # Before they share out what is computed of these images.
        workers.agree({"data": inputs.data})
    if baseline:
        check_baseline_data(config, inputs.data)
    if outputs:
        layers = collect_outputs(inputs.make_losses(config)[0], "teacher_layers")
        inputs.outputs = load_teacher_outputs(outputs, config, splits, layers)
        inputs.fingerprint = inputs.outputs.fingerprint
    elif config.has_teacher and config.teacher_path:
        inputs.teacher = load_teacher(config, splits.for_teacher)
        inputs.fingerprint, inputs.architecture = hash_weights(inputs.teacher), hash_layers(inputs.teacher)
    elif config.has_teacher:
        inputs.teacher = build_model(
            config.teacher_model, splits.for_teacher, config.seed, "Teacher", config.teacher_model_weights
        )
    # Whatever is read from files is read before the run begins: a file that cannot be read leaves no folder behind.
    if baseline_file:
        model = build_model(baseline_file, splits, config.seed, "Anchor")
        if splits.num_classes:
            inputs.baseline_predictions = evaluation.predict_labels(
                model, splits.test_images, splits.multi_label, workers=workers
            )
        inputs.anchor = model if config.anchor == "trained" else None
    inputs.layers = choose_run_layers(config, inputs)
    check_together(config, inputs)
    check_embeddings(student, config.embedding_layer, splits)
    if inputs.teacher is not None:
        check_embeddings(inputs.teacher, config.teacher.embedding_layer, splits.for_teacher)
    return inputs


def load_evaluation_inputs(config):
    """Loads the `Inputs` of `evaluate`: its model as `student`; everything that can be refused is refused here."""
    # A name would be that of a model with random weights, which nobody wants to be measured.
    if not config.model_path.endswith(".keras"):
        raise ValueError(f"`model_path` must be a .keras file. Received: model_path={config.model_path!r}")
    check_without_data(config)
    splits = load_data(config)
    # The results go to the standard output, and nothing else.
    if splits.skipped or splits.bad_images:
        print(describe_images(splits), file=sys.stderr)
    model = models.build(config.model_path, splits.image_shape, splits.num_classes or None, "model_path")
    _check_yes_or_no(config.model_path, model, splits)
    check_unseen(config.model_path, splits)
    check_embeddings(model, config.embedding_layer, splits)
    inputs = Inputs(splits, model)
    if config.teacher_path:
        inputs.teacher = load_teacher(config, splits.for_teacher)
        layer = config.teacher_embedding_layer or config.embedding_layer
        check_embeddings(inputs.teacher, layer, splits.for_teacher)
    return inputs


def _check_yes_or_no(path, model, splits):
    """Raises `ValueError` for a model that returns probabilities, where images have several classes.

    Of one class each the largest probability names it; but a yes is a logit above 0, which every probability is.
    """
    if splits.multi_label and (teachers.ends_in_sigmoid(model) or teachers.ends_in_softmax(model)):
        raise ValueError(
            "A model of several classes per image is measured by its logits, whose yes begins at 0. Received: "
            f"model_path={path!r}, which ends in a sigmoid or a softmax. Save the model without a sigmoid, "
            "keras_tkd.teachers.logits_model(model, multi_label=True)"
        )


def build_model(name, splits, seed, role, weights=None):
    """Builds a model for the data by name or file, returning logits; its starting weights depend on the seed alone."""
    # Each model anew, so that its weights do not depend on which others were built before it.
    keras.utils.set_random_seed(seed)
    # The anchor is the student alone of the run that `baseline` names.
    argument = "baseline" if role == "Anchor" else f"{role.lower()}_model"
    model = models.build(name, splits.image_shape, splits.num_classes or None, argument, weights)
    return without_activation(model, name, role, splits)

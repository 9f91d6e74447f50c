"""The training of students with online teachers: one generation, or several, each with an anchor of its own."""

import dataclasses
import shutil

import keras

from keras_tkd import data, evaluation
from keras_tkd.batches import ANCHOR
from keras_tkd.callbacks import WarmUp
from keras_tkd.config.fields import DISTILLED, collect_settings
from keras_tkd.distillation.trikd import TriKD
from keras_tkd.runs import cached_teacher, checks, optimization, stages
from keras_tkd.runs.fitting import copy_model, place_model
from keras_tkd.runs.records import Stage
from keras_tkd.teacher_cache.fingerprints import hash_weights
from keras_tkd.utils import precision
from keras_tkd.utils.files import atomic_write
from keras_tkd.utils.model_files import load_model

__all__ = ["Generation", "choose_best", "make_trikd", "train_generations"]


@dataclasses.dataclass(frozen=True)
class Generation:
    """A student and the teacher that learned with it.

    Attributes:
        number: from 1.
        stage: the student's stage in the run's folder.
        student, teacher: the models of their files.
        validation_accuracy: the student's, 0..1; None without a validation split.
    """

    number: int
    stage: Stage
    student: keras.Model
    teacher: keras.Model
    validation_accuracy: float | None


def train_generations(run, inputs, baseline):
    """Trains students, each with a new teacher and with the student before it as the anchor.

    All students start from the same weights, and so do all teachers. Generations that the folder has are kept. The
    models of the best become those of the run.

    Args:
        run: the `Run`, with the resolved `DistillConfig` of a method with an online teacher.
        inputs: its `Inputs`; student and teacher are untrained, and stay so.
        baseline: the student alone as this run trained it, which is the first anchor if a trained one is asked for;
            None where another run's is, or none.

    Returns:
        list of `Generation`.
    """
    anchor = _make_anchor(run.config, inputs, baseline)
    decisive = collect_settings(run.config, DISTILLED)
    if run.config.anchor == "trained" and baseline is None:
        # An anchor out of another run's folder decides every generation, and no setting says which weights it has.
        decisive["anchor_weights"] = hash_weights(anchor)
    generations = []
    for number in range(1, (run.config.generations or 1) + 1):
        stage = run.open_stage(f"generations/{number}/student", decisive)
        generation = _train_generation(run, inputs, number, stage, anchor)
        generations.append(generation)
        anchor = copy_model(generation.student)  # an anchor is frozen, and a student's file must not be
    _export(choose_best(generations), run.path)
    return generations


def choose_best(generations):
    """Returns the generation with the highest accuracy on the validation images; without such images, the last."""
    if generations[0].validation_accuracy is None:
        return generations[-1]
    return max(generations, key=lambda generation: generation.validation_accuracy)


def make_trikd(config, teacher, student, anchor):
    """Makes the `TriKD` of a resolved configuration; `anchor` is a model, or None."""
    return TriKD(
        teacher,
        student,
        anchor,
        temperature=config.temperature,
        teacher_loss_weight=config.teacher_loss_weight,
        anchor_weight=config.anchor_weight if anchor is not None else 0.0,
        peer_weight=config.peer_weight,
        student_loss_weight=config.student_loss_weight,
        distillation_loss_weights=config.distillation_loss_weights,
        student_term_reaches_teacher=config.student_term_reaches_teacher,
        gather=config.gather,
    )


def _make_anchor(config, inputs, baseline):
    """Makes the first generation's anchor: a copy of the student alone, an untrained student, or None."""
    if config.anchor == "trained":
        return copy_model(inputs.anchor if baseline is None else baseline.model)
    if config.anchor == "random":
        # Starting weights of its own: those of the run's seed are the student's. Seeds of runs are below 2^30.
        keras.utils.set_random_seed(config.seed + 2**30)
        return keras.models.clone_model(inputs.student)
    return None


def _train_generation(run, inputs, number, stage, anchor):
    config, splits = run.config, inputs.splits
    teacher_path = stage.model_path.with_name("teacher.keras")
    if not stage.finished:
        student, teacher = map(copy_model, (inputs.student, inputs.teacher))
        for model in (student, teacher, anchor):
            if model is not None:
                precision.set_precision(model, config.precision)
        # Before the seed is set: a cache runs the anchor, and what it draws must not matter.
        pipeline = _make_pipeline(run, inputs, number, anchor)
        if run.cluster.strategy is not None:
            # On copies on one device, before models are spread over several.
            copies = [None if model is None else copy_model(model) for model in (teacher, student, anchor)]
            checks.check_first_batch(run, inputs, _make_compiled(config, *copies)[0], pipeline)
        with run.cluster.scope():
            teacher, student, anchor = (place_model(run, model) for model in (teacher, student, anchor))
            trikd, own = _make_compiled(config, teacher, student, anchor)
        callbacks = [optimization.schedule_learning_rate(own, config.teacher)]
        if config.warmup_epochs:
            callbacks.append(WarmUp(config.warmup_epochs))
        if run.cluster.strategy is None:
            checks.check_first_batch(run, inputs, trikd, pipeline)
        title = f"Student and teacher, by {config.title}"
        if config.generations:
            title += f", generation {number} of {config.generations}"
        stages.fit_stage(
            run,
            stage,
            inputs.splits,
            trikd,
            title=title,
            pipeline=pipeline,
            files={teacher_path: teacher, stage.model_path: student},
            callbacks=callbacks,
            frozen={"anchor": anchor},
        )
    student, teacher = (load_model(path) for path in (stage.model_path, teacher_path))
    validation_accuracy = None
    if splits.validation_images is not None:
        outputs = evaluation.logits(student, splits.validation_images, workers=run.cluster)
        validation_accuracy = evaluation.accuracy(outputs, splits.validation_labels)
    return Generation(number, stage, student, teacher, validation_accuracy)


def _make_compiled(config, teacher, student, anchor):
    """Makes the compiled `TriKD` of a run; returns it and the optimizer of its teacher."""
    optimization.add_weight_decay(student, config.coupled_weight_decay)
    optimization.add_weight_decay(teacher, config.teacher.coupled_weight_decay)
    keras.utils.set_random_seed(config.seed)
    trikd = make_trikd(config, teacher, student, anchor)
    own = optimization.make_optimizer(config.teacher)
    optimization.compile_model(trikd, config, teacher_optimizer=own)
    return trikd, own


def _make_pipeline(run, inputs, number, anchor):
    """Makes the batches of a generation: images alone, or with the outputs of its anchor, which are kept."""
    config = run.config

    def images_alone(images, labels, **arguments):
        return data.triplet_dataset(images, labels, negatives=None, views=config.teacher_views, **arguments)

    if anchor is None or not config.keeps_outputs:
        return images_alone
    caches = cached_teacher.build(run, inputs, anchor, part=f"anchor_{number}")
    return cached_teacher.attach(images_alone, caches, key=ANCHOR)


def _export(generation, path):
    """Copies a generation's models to where every run has them: `student.keras` and `teacher.keras`."""
    folder = generation.stage.model_path.parent
    for name in ("student.keras", "teacher.keras"):
        with atomic_write(path / name) as unfinished:
            shutil.copyfile(folder / name, unfinished)

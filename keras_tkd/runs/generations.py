"""The training of students with online teachers: one generation, or several, each with an anchor of its own."""

import dataclasses
import shutil

import keras

from keras_tkd import data, evaluation
from keras_tkd.callbacks import WarmUp
from keras_tkd.distillation.trikd import TriKD
from keras_tkd.runs import cached_teacher, optimization, stages
from keras_tkd.runs.workdir import Stage
from keras_tkd.utils import precision
from keras_tkd.utils.files import atomic_write


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


def train_generations(config, workdir, splits, student, teacher, anchor):
    """Trains `config.generations` students, each with a new teacher and with the student before it as the anchor.

    All students start from the same weights, and so do all teachers. Generations that the folder has are kept.

    Args:
        config: resolved `DistillConfig` of a method with an online teacher.
        student, teacher: untrained models; they stay untrained.
        anchor: the first generation's anchor, or None.

    Returns:
        list of `Generation`.
    """
    generations = []
    for number in range(1, (config.generations or 1) + 1):
        generation = train_generation(config, workdir, splits, number, *map(stages.copy_of, (student, teacher)), anchor)
        generations.append(generation)
        anchor = stages.copy_of(generation.student)  # an anchor is frozen
    return generations


def train_generation(config, workdir, splits, number, student, teacher, anchor):
    stage = Stage(workdir, f"generations/{number}/student", stages.settings_of(config))
    teacher_path = stage.model_path.with_name("teacher.keras")
    if not stage.finished:
        for model in (student, teacher, anchor):
            if model is not None:
                precision.set_precision(model, config.precision)
        pipeline = batches(config, workdir, splits, number, anchor)
        optimization.decay_weights(student, config.weight_decay)
        optimization.decay_weights(teacher, config.teacher.weight_decay)
        keras.utils.set_random_seed(config.seed)
        trikd = make_trikd(config, teacher, student, anchor)
        own = optimization.optimizer_of(config.teacher)
        optimization.compile_model(trikd, config, teacher_optimizer=own)
        callbacks = [optimization.scheduled(own, config.teacher)]
        if config.warmup_epochs:
            callbacks.append(WarmUp(config.warmup_epochs))
        state = [*student.variables, *teacher.variables, *trikd.teacher_optimizer.variables, trikd.step]
        title = f"Student and teacher, by {config.title}"
        if config.generations:
            title += f", generation {number} of {config.generations}"
        files = {teacher_path: teacher, stage.model_path: student}
        stages.fit_stage(trikd, files, config, stage, splits, pipeline, title, state, callbacks)
    student, teacher = (keras.saving.load_model(path, compile=False) for path in (stage.model_path, teacher_path))
    validation_accuracy = None
    if splits.validation_images is not None:
        outputs = evaluation.logits(student, splits.validation_images)
        validation_accuracy = evaluation.accuracy(outputs, splits.validation_labels)
    return Generation(number, stage, student, teacher, validation_accuracy)


def batches(config, workdir, splits, number, anchor):
    """The pipeline of a generation: images alone, or with the outputs of its anchor, which are kept."""

    def images_alone(images, labels, **arguments):
        return data.triplet_dataset(images, labels, negatives=None, views=config.teacher_views, **arguments)

    if anchor is None or config.teacher_cache in ("auto", "off"):
        return images_alone
    caches = cached_teacher.build(config, cached_teacher.folder(config, workdir) / f"anchor_{number}", splits, anchor)
    return cached_teacher.attached(images_alone, caches, key="anchor")


def make_trikd(config, teacher, student, anchor):
    return TriKD(
        teacher,
        student,
        anchor,
        temperature=config.temperature,
        teacher_loss_weight=config.teacher_loss_weight,
        anchor_weight=config.anchor_weight if anchor is not None else 0.0,
        peer_weight=config.peer_weight,
        student_loss_weight=config.student_loss_weight,
        distillation_loss_weights=config.distillation_weights,
        student_term_reaches_teacher=config.student_term_reaches_teacher,
    )


def best(generations):
    """The generation with the highest accuracy on the validation images; without such images, the last."""
    if generations[0].validation_accuracy is None:
        return generations[-1]
    return max(generations, key=lambda generation: generation.validation_accuracy)


def export_best_generation(generation, workdir):
    """Copies a generation's models to where every run has them: `student.keras` and `teacher.keras`."""
    folder = generation.stage.model_path.parent
    for name in ("student.keras", "teacher.keras"):
        with atomic_write(workdir.path / name) as unfinished:
            shutil.copyfile(folder / name, unfinished)

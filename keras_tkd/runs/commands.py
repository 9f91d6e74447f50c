"""The four commands: `train_teacher(config, path)`, `distill(config, path)`, `evaluate(config)`, `export(config)`."""

from keras_tkd.data.stream_errors import explain_stream_errors
from keras_tkd.runs import stages
from keras_tkd.runs.board import Board
from keras_tkd.runs.cached_teacher import resolve_teacher_cache
from keras_tkd.runs.checks import check_teacher
from keras_tkd.runs.exporting import export_source
from keras_tkd.runs.fitting import check_placing
from keras_tkd.runs.generations import choose_best, train_generations
from keras_tkd.runs.inputs import load_distillation_inputs, load_evaluation_inputs, load_teacher_inputs
from keras_tkd.runs.latency import measure_model_latency
from keras_tkd.runs.measuring import compute_closed_set_logits, measure_given_outputs, measure_model, measure_teacher
from keras_tkd.runs.observing import Observer
from keras_tkd.runs.results import describe_generations, describe_student_run, describe_teacher_run
from keras_tkd.runs.run import open_run

__all__ = ["distill", "evaluate", "export", "train_teacher"]


@explain_stream_errors()
def train_teacher(config, path, existing="refuse", callbacks=()):
    """Trains a teacher on the labels and writes `teacher.keras`, `results.json`, logs and flags into a folder.

    Args:
        config: `TeacherTrainingConfig`.
        path: the run's folder.
        existing: what to do where the folder holds another run: see `Workdir`.
        callbacks: list or tuple of Keras callbacks that take part in the training, as in `distill`.

    Returns:
        The results, as in `results.json`.

    Raises:
        ValueError: what cannot be trained, before anything is written; another run's folder; a file of streamed images
            that changes.
        BlockingIOError: another process is at work in the folder.
    """
    with open_run("train_teacher", config, path, existing, callbacks) as run:
        if run.finished:
            return run.results
        inputs = load_teacher_inputs(run.config, run.splits, run.cluster)
        run.begin(inputs)
        board = Board(run, inputs)
        teacher = stages.train_teacher(run, inputs)
        results = describe_teacher_run(run, inputs, teacher)
        board.write(results, teacher.model)
        return run.write(results)


@explain_stream_errors()
def distill(config, path, existing="refuse", callbacks=()):
    """Trains a student by a method, and the same student alone, and writes everything into a folder.

    The teacher comes from `config.teacher_path` (an ensemble, where that names several) or is trained first, or it
    learns together with the student; or its outputs alone come from `config.teacher_outputs`. The baseline starts from
    the same weights as the distilled student and sees the same images in the same order for the same number of epochs;
    where `teacher_views` bounds the views that the distilled student sees, the baseline still sees fresh ones.

    A run that was interrupted is taken up; a training that the folder holds is not done again.

    Args:
        config: `DistillConfig`.
        path: the run's folder.
        existing: what to do where the folder holds another run: see `Workdir`.
        callbacks: list or tuple of Keras callbacks that take part in every training of the run: of the teacher, of the
            baseline, of each student (whose `self.model` is the `Distiller`), one after another. They see the logs
            complete, and the numbers that they add to an epoch's are shown and kept too. One that sets
            `self.model.stop_training` ends the training that is going on, which then counts as finished, with as many
            epochs as the results say; the next begins. Without `validation_fraction`, held-out values are those of the
            test images: do not stop by them. The run's schedule sets the learning rate at the start of each epoch, and
            what a callback sets holds until then: `keras.callbacks.LearningRateScheduler` and `ReduceLROnPlateau` are
            refused. Callbacks are no part of what a run is: trainings that the folder holds are not done again for
            others, and what they remember is lost in an interruption.

    Returns:
        The results, as in `results.json`.

    Raises:
        ValueError: what cannot be trained, before anything is written; callbacks that cannot take part; another run's
            folder; a teacher whose outputs are not finite; with `check="strict"`, a teacher that turns out to know no
            more than chance, and what the check of the first batch warns of; logs that are no numbers; a file
            of streamed images that changes.
        BlockingIOError: another process is at work in the folder.
        FloatingPointError: a loss that is not finite.
    """
    with open_run("distill", config, path, existing, callbacks) as run:
        if run.finished:
            return run.results
        # Everything is checked before `begin`, which is the first to write anything.
        inputs = load_distillation_inputs(run.config, run.splits, run.cluster)
        run.resolve_config(resolve_teacher_cache(run.config, run.shared_path, inputs))
        check_placing(run, inputs.teacher)
        run.begin(inputs)
        board, observer = Board(run, inputs), Observer(run, inputs)
        teacher = _obtain_teacher(run, inputs)
        for each in (board, observer):
            each.add_teacher(teacher)
        baseline = stages.train_baseline(run, inputs, teacher)
        baseline_model = None if baseline is None else baseline.model
        # An online teacher is trained with its student. This is the one place where the two kinds of run differ.
        if run.config.online:
            generations = train_generations(run, inputs, baseline)
            results = describe_generations(run, inputs, baseline, generations)
            best = choose_best(generations)
            student, online = best.student, best.teacher
            board.add_online_teacher(online)
        else:
            trained = stages.train_student(run, inputs, teacher)
            results = describe_student_run(run, inputs, teacher, baseline, trained)
            student, online = trained.model, None
        # Before the results: once they are there, the run is finished.
        board.write(results, student)
        observer.write(student, baseline_model, online)
        return run.write(results)


@explain_stream_errors()
def evaluate(config):
    """Measures a saved model on the test images, beside its teacher.

    Args:
        config: `EvaluateConfig`.

    Returns:
        dict with the model's `test_accuracy`, `parameters`, `at_chance`, with an open set `verification`, and, with
        a teacher, `agreement` and `teacher`, a dict like it, with several also `teachers`, a list of such dicts. Where
        all classes are in the open set, nothing is said of the classes: neither accuracies nor agreement.

    Raises:
        ValueError: files or data that cannot be measured; a model whose outputs are not finite; one that was trained on
            images it is to be verified on.
    """
    inputs = load_evaluation_inputs(config)
    splits, model = inputs.splits, inputs.student
    logits, described = None, {}
    if inputs.teacher is not None:
        layer = config.teacher_embedding_layer or config.embedding_layer
        teacher = measure_teacher(inputs.teacher, splits.for_teacher, embedding_layer=layer)
        logits, described = teacher.logits, {"teacher": teacher.result.without_classes().to_dict()}
        if teacher.members:
            described["teachers"] = [member.without_classes().to_dict() for member in teacher.members]
    outputs = compute_closed_set_logits(model, splits)
    measured = measure_model(model, outputs, splits, logits, embedding_layer=config.embedding_layer)
    # What is said here is for a person, on one screen; a run's file has the classes too.
    return measured.without_classes().to_dict() | described


@explain_stream_errors()
def export(config):
    """Writes a trained model in the formats of devices into a folder, and measures each file in its own runtime.

    Beside the files, `export.json` says what was measured: of each file size, test accuracy, agreement with the model
    in Keras and the largest difference to its outputs, duration of a batch of 1 and of 32; and the same of the model
    and its teacher in Keras. TensorFlow computes with the threads that the process gives it; `scripts/export.py` gives
    it one.

    Args:
        config: `ExportConfig`.

    Returns:
        `keras_tkd.reports.exports.ExportResults`, as in `export.json`. Files that lose more accuracy than
        `config.max_drop` are written too: `passed` is then False.

    Raises:
        ValueError: what cannot be exported or measured; packages that are not installed; a folder that is in the way.
    """
    return export_source(config)


def _obtain_teacher(run, inputs):
    """Obtains the teacher that is trained before its student, by this run or another; None where none is.

    Returns:
        `MeasuredTeacher`.
    """
    config = run.config
    if not config.takes_trained_teacher:
        return None
    if inputs.outputs is not None:
        teacher = measure_given_outputs(inputs.outputs, inputs.splits)
        check_teacher(teacher, config)
        return teacher
    if not config.trains_teacher:
        model, stage = inputs.take_teacher(), None
    else:
        print(
            f"Training a new head for the teacher {config.teacher_path[0]} first"
            if config.teacher_head
            else f"No --teacher_path: training the teacher '{config.teacher_model}' first"
        )
        trained = stages.train_teacher(run, inputs)
        model, stage = trained.model, trained.stage
    splits = inputs.splits.for_teacher
    teacher = measure_teacher(model, splits, stage, config.teacher.embedding_layer, run.cluster)
    # Now, for with a cache the model is gone before its student is trained.
    teacher.latency_ms = measure_model_latency(model, splits.train_images)
    # Before anything is trained from it: a teacher on wrong pixels or classes is a mistake that accuracy shows.
    check_teacher(teacher, config)
    return teacher

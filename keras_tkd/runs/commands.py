"""The story of a run: `train_teacher(config, workdir)`, `distill(config, workdir)`, `evaluate(config)`."""

import pathlib

from keras_tkd import evaluation, models
from keras_tkd.config.flagfile import flag_lines, resolve_from_record
from keras_tkd.runs import cached_teacher, devices, distillation_setup, stages
from keras_tkd.runs.baseline import baseline_path, epochs_to, read_baseline
from keras_tkd.runs.checks import check_embeddings, check_teacher, check_together, check_unseen
from keras_tkd.runs.generations import best, export_best_generation, train_generations
from keras_tkd.runs.inputs import build_model, load_data, load_splits, load_teacher
from keras_tkd.runs.results import closed_set_logits, describe_model, describe_run, describe_student, describe_teacher
from keras_tkd.runs.workdir import FLAGS, SPLIT, Workdir
from keras_tkd.utils.files import write_json


def train_teacher(config, workdir, existing="refuse"):
    """Trains a teacher on the labels and writes `teacher.keras`, `results.json`, logs and flags into `workdir`.

    Args:
        config: `TeacherTrainingConfig`.
        workdir: path of the run's folder.
        existing: see `Workdir`.

    Returns:
        The results, as in `results.json`.
    """
    config, workdir, finished = open_workdir(config, workdir, existing)
    if finished:
        return finished
    splits = load_splits(config)
    new = build_model(config.teacher_model, splits, config.seed, "Teacher")
    check_embeddings(new, config.embedding_layer, splits)
    begin(workdir, splits, f"python scripts/train_teacher.py --flagfile=this_file --workdir={workdir.path}")
    stage, teacher = stages.train_teacher(config, workdir, splits, new)
    outputs = evaluation.logits(teacher, splits.test_images)
    layer = config.embedding_layer
    described = {"teacher": describe_model(teacher, outputs, splits, seconds=stage.seconds, embedding_layer=layer)}
    return workdir.write_results(describe_run("teacher", config, stage, splits) | described)


def distill(config, workdir, existing="refuse"):
    """Trains a student by a method, and the same student alone, and writes everything into `workdir`.

    The teacher comes from `config.teacher_path` (an ensemble, where that names several) or is trained first. The
    baseline starts from the same weights as the distilled student and sees the same images in the same order for the
    same number of epochs; where `teacher_views` bounds the views that the distilled student sees, the baseline still
    sees fresh ones.

    Args:
        config: `DistillConfig`.
        workdir: path of the run's folder.
        existing: see `Workdir`.

    Returns:
        The results, as in `results.json`.
    """
    config, workdir, finished = open_workdir(config.resolved(), workdir, existing)
    if finished:
        return finished
    # First everything that can be refused.
    with_teacher = bool(config.recipe.terms)
    baseline = read_baseline(config)
    if baseline and config.anchor == "trained":
        baseline_path(config)
    splits = load_splits(config)
    student = build_model(config.student_model, splits, config.seed, "Student")
    teacher = None
    if with_teacher and config.teacher_path:
        teacher = load_teacher(config, splits)
    elif with_teacher:
        teacher = build_model(config.teacher_model, splits, config.seed, "Teacher")
    check_together(config, teacher, student, splits)
    layer, teacher_layer = config.embedding_layer, config.teacher.embedding_layer
    check_embeddings(student, layer, splits)
    if with_teacher:
        check_embeddings(teacher, teacher_layer, splits)
        # An online teacher's anchor is a student.
        frozen, losses = (
            (student, []) if config.online else (teacher, distillation_setup.losses_of(config, splits.train_labels)[0])
        )
        config = cached_teacher.resolve_teacher_cache(config, workdir, splits, frozen, losses)
        workdir.flags = flag_lines(config)

    begin(workdir, splits, f"python scripts/distill.py --flagfile=this_file --workdir={workdir.path}")
    if config.online:
        return workdir.write_results(distill_online(config, workdir, splits, student, teacher, baseline))
    outputs, described = None, {}
    if with_teacher:
        seconds = None
        if not config.teacher_path:
            print(f"No --teacher_path: training the teacher '{config.teacher_model}' first")
            stage, teacher = stages.train_teacher(config.teacher, workdir, splits, teacher)
            seconds = stage.seconds
        outputs, described = describe_teacher(teacher, splits, seconds, teacher_layer)
        check_teacher(described, config, splits)
        if baseline is None and config.baseline == "train":
            stage, alone = stages.train_baseline(config, workdir, splits, student)
            baseline = describe_student(alone, splits, outputs, stage.seconds, layer)
        described["baseline"] = baseline
    teaching = distillation_setup.set_up_distillation(config, workdir, splits, teacher) if with_teacher else None
    teacher = None  # with a cache nobody holds it any more
    # What is measured is the file that is handed over.
    stage, student = stages.train_student(config, workdir, splits, student, teaching)
    described["student"] = describe_student(student, splits, outputs, stage.seconds, layer)
    described["student"]["epochs_to_baseline"] = epochs_to(baseline, stage.history)
    return workdir.write_results(describe_run(config.title, config, stage, splits) | described)


def distill_online(config, workdir, splits, student, teacher, baseline):
    """The part of `distill` in which teacher and student learn together; returns the results."""
    anchor, alone = None, None
    if baseline is None and (config.baseline == "train" or config.anchor == "trained"):
        stage, alone = stages.train_baseline(config, workdir, splits, student)
    if config.anchor == "trained":
        anchor = stages.copy_of(alone or build_model(baseline_path(config), splits, config.seed, "Anchor"))
    elif config.anchor == "random":
        anchor = stages.untrained_copy_of(student, config.seed)
    generations = train_generations(config, workdir, splits, student, teacher, anchor)
    chosen = best(generations)
    export_best_generation(chosen, workdir)
    outputs = evaluation.logits(chosen.teacher, splits.test_images)
    if alone is not None:
        baseline = describe_student(alone, splits, outputs, stage.seconds, config.embedding_layer)
    described = [describe_generation(generation, config, splits, baseline) for generation in generations]
    own = {
        "baseline": baseline,
        "generations": described,
        "generation": chosen.number,
        **{role: described[chosen.number - 1][role] for role in ("teacher", "student")},
    }
    return describe_run(config.method, config, chosen.stage, splits) | own


def describe_generation(generation, config, splits, baseline):
    outputs = evaluation.logits(generation.teacher, splits.test_images)
    seconds, layer = generation.stage.seconds, config.teacher.embedding_layer
    student = describe_student(generation.student, splits, outputs, seconds, config.embedding_layer)
    return {
        "teacher": describe_model(generation.teacher, outputs, splits, embedding_layer=layer),
        "student": student | {"epochs_to_baseline": epochs_to(baseline, generation.stage.history)},
        "validation_accuracy": generation.validation_accuracy,
    }


def evaluate(config):
    """Measures a saved model on the test images, beside its teacher.

    Args:
        config: `EvaluateConfig`.

    Returns:
        dict with the model's `test_accuracy`, `parameters`, `at_chance`, with an open set `verification`, and, with
        a teacher, `agreement` and `teacher`, a dict like it, with several also `teachers`, a list of such dicts. Where
        all classes are in the open set, nothing is said of the classes: neither accuracies nor agreement.
    """
    splits = load_data(config)
    layer, teacher_layer = config.embedding_layer, config.teacher_embedding_layer or config.embedding_layer
    model = models.build(config.model_path, splits.image_shape, splits.num_classes or None)
    check_unseen(config.model_path, splits)
    check_embeddings(model, layer, splits)
    teacher_outputs, described = None, {}
    if config.teacher_path:
        teacher = load_teacher(config, splits)
        check_embeddings(teacher, teacher_layer, splits)
        teacher_outputs, described = describe_teacher(teacher, splits, None, teacher_layer)
    outputs = closed_set_logits(model, splits)
    return describe_model(model, outputs, splits, teacher_outputs, embedding_layer=layer) | described


def open_workdir(config, path, existing):
    """The configuration with its precision settled, the `Workdir`, and the results of a finished run, else None."""
    if existing != "overwrite":
        config = resolve_from_record(config, pathlib.Path(path) / FLAGS)
    config = devices.resolve_precision(config)
    workdir = Workdir(path, flag_lines(config), existing)
    finished = workdir.finished_results()
    if finished:
        print(f"Finished already: {workdir.path}")
    return config, workdir, finished


def begin(workdir, splits, command):
    workdir.begin(f"To run this again: {command}")
    unseen = {"open_set_classes": splits.open_set_names} if splits.open_set_names else {}
    if splits.split or unseen:
        write_json(workdir.path / SPLIT, {**unseen, **(splits.split or {})})

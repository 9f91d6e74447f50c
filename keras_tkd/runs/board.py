"""The summary of a whole run for TensorBoard: settings and results, pictures, embeddings, graphs."""

import dataclasses
import math
import shutil

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from keras_tkd import data, evaluation
from keras_tkd.config.fields import DISTILLED, list_deciding
from keras_tkd.runs.board_graphs import make_graph
from keras_tkd.runs.board_pictures import draw_confusion, draw_triplet
from keras_tkd.runs.board_projector import write_projector
from keras_tkd.runs.board_triplets import choose_triplets, measure_triplets
from keras_tkd.teachers.ensemble import flatten_ensemble
from keras_tkd.utils.layer_outputs import has_output

__all__ = ["Board"]

# Test images of which embeddings are shown, and triplets chosen; they stay in memory while the run trains.
_MOST_IMAGES, _MOST_BYTES = 1000, 2**26
_TRIPLETS = 6
_STUDENT, _TEACHER = "student", "teacher"
# Settings that are said of each run, also where they are the defaults: what people compare runs by.
_ALWAYS_SHOWN = ("seed", "epochs", "batch_size", "learning_rate", "optimizer", "schedule")
_RESULTS = {
    "test_accuracy": ("test/accuracy", "Share of test images that the model names right."),
    "balanced_accuracy": ("test/balanced_accuracy", "Mean of the classes' own accuracies on test images."),
    "agreement": ("test/agreement", "Share of test images for which student and teacher name the same class."),
    "parameters": ("training/parameters", "Trainable parameters."),
    "seconds": ("training/seconds", "Duration of the training, validation included."),
}


class Board:
    """Collects what TensorBoard shows of a whole run, and writes it once, when the run ends.

    It is a run of TensorBoard's, `result`, beside the curves of the trainings. Making it removes that of an earlier
    time, so that nothing is there twice. It draws no random number and changes no model: a run ends in the same bits
    with and without it.

    Args:
        run: the `Run`.
        inputs: its `Inputs`, before anything is trained.
    """

    def __init__(self, run, inputs):
        self._config, self._inputs, self._splits = run.config, inputs, inputs.splits
        self._folder = run.path / "logs" / "result"
        shutil.rmtree(self._folder, ignore_errors=True)
        # Where all classes are in the open set, there are no images of classes; and of several classes no matrix, no
        # triplet and no single name.
        of_one_class = bool(self._splits.num_classes) and not self._splits.multi_label
        self._pictured = self._config.tensorboard == "all" and of_one_class
        self._role = _TEACHER if inputs.student is None else _STUDENT
        self._logits, self._embeddings, self._graphs = {}, {}, {}
        if self._pictured:
            self._chosen = _choose_images(len(self._splits.test_labels), math.prod(self._splits.image_shape))
            self._images = data.take_images(self._splits.test_images, self._chosen)
            # The same in another size, where the teacher has such.
            seen = self._splits.for_teacher
            self._seen = self._images if seen is self._splits else data.take_images(seen.test_images, self._chosen)
            self._labels = np.asarray(self._splits.test_labels)[self._chosen]
            model = inputs.teacher if inputs.student is None else inputs.student
            self._before = evaluation.logits(model, self._images)

    def add_teacher(self, teacher):
        """Takes what is shown of a teacher out of a `MeasuredTeacher`, whose model may be gone when the run ends."""
        if not self._pictured or teacher is None or teacher.logits is None:
            return
        layer = self._config.teacher.embedding_layer
        if teacher.model is None:
            self._logits[_TEACHER] = self._embeddings[_TEACHER] = teacher.logits[self._chosen]
        else:
            self._add_model(_TEACHER, teacher.model, layer, teacher.logits)

    def add_online_teacher(self, model):
        """Takes what is shown of a teacher that learned with its student."""
        if self._pictured:
            self._add_model(_TEACHER, model, self._config.teacher.embedding_layer, self._inputs.compute_logits(model))

    def write(self, results, model):
        """Writes all of it.

        Args:
            results: `Results` of the run.
            model: the model that the run trained, as read from its file.
        """
        if self._config.tensorboard == "off":
            return
        result = results.teacher if self._role == _TEACHER else results.student
        epochs = results.epochs if result.epochs is None else result.epochs
        try:
            with tf.summary.create_file_writer(str(self._folder)).as_default(step=epochs) as writer:
                hparams.hparams(_list_settings(self._config, results.method))
                self._write_numbers(results, result)
                if self._pictured:
                    logits = self._inputs.compute_logits(model)
                    self._add_model(self._role, model, self._config.embedding_layer, logits)
                    self._write_graphs()
                    self._write_confusions(results)
                    self._write_triplets(epochs)
                    self._write_embeddings()
            writer.close()
        except (OSError, tf.errors.OpError) as error:
            # What is trained is worth more than its pictures.
            print(f"Warning: TensorBoard's results of this run could not be written: {error}", flush=True)

    def _add_model(self, role, model, layer, logits):
        """Takes what is shown of a model; `logits` are for all test images."""
        name, images = layer or evaluation.EMBEDDING, self._seen if role == _TEACHER else self._images
        self._logits[role] = embeddings = logits[self._chosen]
        # An ensemble has no layer of its own, and another's model may call its embedding otherwise.
        if len(flatten_ensemble(model)) == 1 and has_output(model, name):
            embeddings = evaluation.embeddings(model, images, name)
        self._embeddings[role] = embeddings.reshape(len(embeddings), -1)
        self._graphs[role] = make_graph(model, role)

    def _write_numbers(self, results, result):
        values = {tag: (getattr(result, name), text) for name, (tag, text) in _RESULTS.items()}
        if self._role == _STUDENT:
            teacher, alone = results.teacher, results.baseline
            if teacher is not None:
                values["test/teacher_accuracy"] = teacher.test_accuracy, "The same of the teacher."
            if alone is not None:
                values["test/alone_accuracy"] = alone.test_accuracy, "The same of the student alone."
                if None not in (result.test_accuracy, alone.test_accuracy):
                    gain = result.test_accuracy - alone.test_accuracy
                    values["test/gain"] = gain, "Accuracy of the student less that of the student alone."
        for tag, (value, text) in values.items():
            if value is not None:
                tf.summary.scalar(tag, value, description=text)

    def _write_graphs(self):
        # One graph with a box for each model. Of graphs such as Keras's own callback writes, TensorBoard shows an error
        # until a person has chosen "conceptual graph".
        both = tf.compat.v1.GraphDef()
        for graph in self._graphs.values():
            if graph is not None:
                both.node.extend(graph.node)
        if both.node:
            tf.summary.graph(both)

    def _write_confusions(self, results):
        models = {_TEACHER: results.teacher, _STUDENT: results.student, "student_alone": results.baseline}
        for role, result in models.items():
            if result is not None and result.confusion_matrix is not None:
                picture = draw_confusion(result.confusion_matrix, self._splits.class_names)
                text = f"Test images: rows are the labels, columns what the {role.replace('_', ' ')} named."
                tf.summary.image(f"confusion/{role}", picture[None], description=text)

    def _write_triplets(self, epochs):
        logits = self._logits
        triplets = choose_triplets(self._labels, logits.get(_TEACHER, logits[self._role]), _TRIPLETS)
        names = self._splits.class_names
        times = {"before training": (0, self._before), "after training": (epochs, logits[self._role])}
        rows = {time: measure_triplets(of, triplets) for time, (_, of) in times.items()}
        if self._role == _STUDENT and _TEACHER in logits:
            rows["the teacher"] = measure_triplets(logits[_TEACHER], triplets)
        for place, triplet in enumerate(triplets):
            here = [(time, distances[place]) for time, distances in rows.items()]
            text = [
                f"Euclidean distances of the {self._role}'s logits from those of the anchor. The negative is the image "
                "of another class that is nearest to the anchor by the teacher, or without one by the trained student.",
                "",
                "| | positive | negative |",
                "|---|---|---|",
                *(f"| {time} | {near:.3g} | {far:.3g} |" for time, (near, far) in here),
            ]
            for time, (step, _) in times.items():
                classes = [names[label] for label in self._labels[triplet]]
                picture = draw_triplet(self._images[triplet], classes, rows[time][place])
                tf.summary.image(f"triplets/{place + 1}", picture[None], step=step, description="\n".join(text))

    def _write_embeddings(self):
        names = self._splits.class_names
        named = {role: logits.argmax(-1) for role, logits in self._logits.items()}
        # TensorBoard writes the first column that is no number beside the points.
        model, labels = named[self._role], self._labels
        seen = [names[b] if a == b else f"{names[b]}, taken for {names[a]}" for a, b in zip(model, labels, strict=True)]
        columns = {"image": seen, "label": [names[label] for label in labels]}
        columns |= {f"{role} says": [names[label] for label in of] for role, of in named.items()}
        columns |= {f"{role} is": np.where(of == labels, "right", "wrong") for role, of in named.items()}
        columns["test image"] = self._chosen
        write_projector(self._folder, self._images, columns, self._embeddings)


def _choose_images(count, size):
    """Chooses which of a number of images, each of `size` bytes, are shown; returns their ids in order."""
    most = max(1, min(count, _MOST_IMAGES, _MOST_BYTES // size))
    # Evenly over all: of images that are stored class by class, the first are of one class.
    return np.unique(np.linspace(0, count - 1, most).round().astype(int))


def _list_settings(config, method):
    """Returns the settings that a run is compared by with others: the usual ones, and what is not as by default."""
    settings = {"method": method}
    default = {field.name: field.default for field in dataclasses.fields(config)}
    unread = set(config.irrelevant_fields)
    # One more generation decides no model that there was before it, but which of them the run has made.
    for name in (*list_deciding(type(config), DISTILLED), "generations"):
        value = getattr(config, name, None)
        if name in ("method", "losses") or name in unread or value is None:
            continue
        if name in _ALWAYS_SHOWN or value != default[name]:
            settings[name] = _to_setting(value)
    return settings


def _to_setting(value):
    if isinstance(value, (list, tuple)):
        return _to_setting(value[0]) if len(value) == 1 else ",".join(map(str, value))
    # Marked defaults are subclasses of numbers and text, which TensorBoard takes for these.
    return value if isinstance(value, (bool, int, float, str)) else str(value)

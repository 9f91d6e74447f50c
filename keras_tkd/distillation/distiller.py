"""The Distiller: a Keras model whose training step teaches a student with a teacher.

Who owns what:
- the losses say what they read (`DistillationLoss.inputs`) and own their projectors;
- `LayerOutputs` gets named outputs out of one forward pass, `TeacherReader` those of the teacher;
- the Distiller has the order of a step: it runs the passes, weights and sums the terms, tracks them, and updates what
  learns; a subclass in which more than the student learns (`TriKD`) adds a total, a learner and its losses;
- everything else (loops, callbacks, optimizers, saving) is Keras's.
"""

import keras
import tensorflow as tf

from keras_tkd import teachers
from keras_tkd.batches import EXTRA_IMAGES, as_batch, batch_size, class_ids, images_of, is_batch
from keras_tkd.callbacks import TerminateOnNonFinite
from keras_tkd.distillation import validation
from keras_tkd.distillation.forward_pass import Step, compared_with, share_of_equal, sum_of, totals_of, values_of
from keras_tkd.losses.base import collect_layer_names, select
from keras_tkd.teachers.ensemble_reader import make_teacher_reader
from keras_tkd.utils.hyperparameters import ScalarVariable, check_number
from keras_tkd.utils.layer_outputs import LayerOutputs, output_shapes

TOTAL = "loss"
STUDENT_LOSS = "student_loss"
REGULARIZATION = "regularization"
AGREEMENT = "agreement"


@keras.saving.register_keras_serializable(package="keras_tkd")
class Distiller(keras.Model):
    """Trains a student on labels and on the outputs of a frozen teacher.

        total = student_loss_weight * student_loss + sum_k weight_k * distillation_loss_k + regularization

    `student_loss` is the loss given to `compile`, between labels and the student's output; `regularization` are the
    student's own regularization losses. The weights are independent, as papers write them.

    Data, for `fit` and `evaluate`: whatever the models take, with labels; or a dict with the key `"image"`, and as
    needed `"negative"` (an image of another class for each image), `"positive"` (another image of its class),
    `"partner"` and `"same"` (an image of any class, and whether it is of the image's), `"index"` (ids of the samples),
    `"teacher"` (a dict of the teacher's outputs, so that the teacher is not run) and `"teacher_image"` (what it sees in
    place of `"image"`). Images whose height or width is not what the teacher takes are resized for it.
    `sample_weight` and `class_weight` weight every loss.

    Args:
        teacher: trained `keras.Model` that returns logits, or a `TeacherEnsemble` of several. It is frozen:
            `trainable` is set False. None where every batch has a `"teacher"`, of a `TeacherCache` for example: then no
            teacher is in memory.
        student: `keras.Model` that returns logits, built or not.
        distillation_losses: a `DistillationLoss` or a list of them; losses of `keras.distillation` are taken too.
        distillation_loss_weights: a number >= 0 for each loss; None is 1 for each. May be replaced while training.
        student_loss_weight: >= 0, weight of the loss on the labels. May be set while training.
        name: name of the model.

    Metrics: one per loss by its name, `student_loss`, `regularization` (if the student has any), `agreement` (share of
    images for which student and teacher name the same class), and the statistics of each loss, such as `tkd_violated`.

    A step in which a loss is not finite updates nothing; `fit` reads that note every 50 steps and raises
    `FloatingPointError`, which names the first such step and loss.

    Raises:
        ValueError: models that cannot go together, that end in a softmax, or that share weights; a student without
            weights; weights that are negative or of the wrong number.

    Example:

    ```python
    distiller = Distiller(teacher, student, SoftTargets(temperature=4.0), [0.9], student_loss_weight=0.1)
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    distiller.fit(images, labels, epochs=20)
    distiller.student.save("student.keras")
    ```
    """

    def __init__(
        self,
        teacher,
        student,
        distillation_losses,
        distillation_loss_weights=None,
        student_loss_weight=1.0,
        name="distiller",
    ):
        validation.check_models(teacher=teacher, student=student)
        # Keras scales losses if the policy of the compiled model is mixed_float16: that has to be the student's.
        float16 = any(layer.compute_dtype == "float16" for layer in student._flatten_layers())
        super().__init__(name=name, dtype="mixed_float16" if float16 else "float32", autocast=False)
        losses = validation.check_losses(distillation_losses, teacher, student)
        weights = [1.0] * len(losses) if distillation_loss_weights is None else distillation_loss_weights
        check_number("student_loss_weight", student_loss_weight)
        self.teacher = teacher
        self.student = student
        self.distillation_losses = list(losses)
        self.term_names = number_duplicates([loss.name for loss in losses])
        self._student_loss_weight_variable = ScalarVariable(student_loss_weight)
        weights = validation.check_weights(weights, len(losses))
        self._weight_variables = tuple(ScalarVariable(weight) for weight in weights)
        self.freeze_teacher()

        self._read_teacher = make_teacher_reader(teacher, losses)
        self._read_student = LayerOutputs(student, collect_layer_names(losses, "student_layers"))
        self.loss_layers = []
        self._trackers = {}
        # A step counter of its own: an optimizer under loss scaling does not count the steps that it skips.
        self.step = self.add_weight(shape=(), dtype="int64", initializer="zeros", trainable=False, name="step")
        # Step and term (its position) of the first loss that was not finite; -1 while there is none.
        self._first_non_finite = tf.Variable([-1, -1], dtype="int64", trainable=False, name="first_bad")
        if student.built and teacher is not None and teacher.built and getattr(student, "inputs", None):
            self.build(student.input_shape)

    # Numbers that may change while training.

    @property
    def student_loss_weight(self):
        return self._student_loss_weight_variable.number

    @student_loss_weight.setter
    def student_loss_weight(self, weight):
        check_number("student_loss_weight", weight)
        self._student_loss_weight_variable.assign(weight)

    @property
    def distillation_loss_weights(self):
        return [variable.number for variable in self._weight_variables]

    @distillation_loss_weights.setter
    def distillation_loss_weights(self, weights):
        weights = validation.check_weights(weights, len(self._weight_variables))
        for variable, weight in zip(self._weight_variables, weights, strict=True):
            variable.assign(weight)

    # Building.

    def freeze_teacher(self):
        """Makes the teacher untrainable. A subclass whose teacher learns overrides this."""
        if self.teacher is not None:
            teachers.freeze(self.teacher)

    def build(self, input_shape):
        """Builds student, teacher and the losses' layers, and checks that they go together.

        Args:
            input_shape: shape of a batch of inputs, or the dict of shapes of a batch as `fit` takes it.
        """
        if self.built:
            return
        shapes = as_batch(input_shape)
        with tf.init_scope():
            student = output_shapes(self.student, self._read_student.names, shapes["image"])
            teacher = self._output_shapes(self._read_teacher, shapes)
            validation.check_built_models(self._read_teacher.teachers, self.student)
            validation.check_apart(teacher=self.teacher, student=self.student)
            for loss in self._read_teacher.losses:
                loss.build(select(teacher, loss.teacher_layers), select(student, loss.student_layers))
        self.loss_layers = [layer for loss in self._read_teacher.losses for layer in loss.layers]
        names = self._names_tracked(comparable=teacher.get("logits") == student["logits"])
        self._trackers = {name: keras.metrics.Mean(name=name) for name in names}

    def _output_shapes(self, reader, shapes):
        """Shapes of a model's outputs by name: those that batches bring, or its own, for which it is built."""
        if reader.role not in shapes:
            return reader.build(images_of(reader.role, shapes))
        given = {name: tuple(shape) for name, shape in shapes[reader.role].items()}
        reader.check_given(given)
        return given

    def _names_tracked(self, comparable):
        """Names of all that a step tracks; `comparable` says whether teacher and student name the same classes."""
        names = [STUDENT_LOSS, *self.term_names]
        for term, loss in zip(self.term_names, self.distillation_losses, strict=True):
            names += [f"{term}_{statistic}" for statistic in loss.statistic_names]
        if comparable:
            names.append(AGREEMENT)
        if any(map(is_regularized, [self.student, *self.loss_layers])):
            names.append(REGULARIZATION)
        return names

    @property
    def losses(self):
        """Regularization losses of the student and of the losses' layers; the teacher's are not the training's."""
        return [*self.student.losses, *(value for layer in self.loss_layers for value in layer.losses)]

    def call(self, inputs, training=None):
        return self.student(as_batch(inputs)["image"], training=training)

    # One step.

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        batch = self._prepare(x)
        for reader in self._frozen_readers():
            validation.check_frozen(reader.role, reader.teachers)
        learners = self._objectives()
        # A persistent tape also differentiates what happens inside a custom gradient: that costs, and XLA refuses it
        # where there is a branch in it.
        with tf.GradientTape(persistent=len(learners) > 1) as tape:
            step = self._run(batch, y, sample_weight, training=True)
            losses = self._compute_terms(step)
            totals = totals_of(losses)
            scaled = {name: learners[name][0].scale_loss(total) for name, total in totals.items()}
        updates = [(optimizer, tape.gradient(scaled[name], own), own) for name, (optimizer, own) in learners.items()]
        self._apply_if_finite(values_of(losses), updates)
        self._track(step, losses, totals)
        return self.compute_metrics(x, y, step.y_pred, sample_weight=sample_weight)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        step = self._run(self._prepare(x), y, sample_weight, training=False)
        losses = self._compute_terms(step)
        self._track(step, losses, totals_of(losses))
        return self.compute_metrics(x, y, step.y_pred, sample_weight=sample_weight)

    def _prepare(self, x):
        """The batch, with the outputs of the models that do not learn: what the data do not bring is computed."""
        batch = as_batch(x)
        if not self.built:
            shapes = keras.tree.map_structure(lambda tensor: tuple(tensor.shape), batch)
            self.build(shapes if is_batch(x) else shapes["image"])
        for reader in self._frozen_readers():
            if reader.role in batch:
                reader.check_given(batch[reader.role])
            else:
                _, outputs = reader(images_of(reader.role, batch), training=False)
                batch = batch | {reader.role: keras.tree.map_structure(tf.stop_gradient, outputs)}
        return batch

    def _frozen_readers(self):
        """The readers of the models that do not learn."""
        return [self._read_teacher]

    def _objectives(self):
        """`(optimizer, variables)` of each model that learns, by the metric that its total is."""
        return {TOTAL: (self.optimizer, self.trainable_variables)}

    def _run(self, batch, y, sample_weight, training):
        """The `Step` of a prepared batch: all outputs, and what the losses read of them."""
        teacher = self._run_teacher(batch, training)
        y_pred, student = self._run_student(batch, training)
        fixed = keras.tree.map_structure(tf.stop_gradient, teacher)
        labels, index = class_ids(y), batch.get("index")
        pairs = [loss.inputs(fixed, student, labels, index) for loss in self._read_teacher.losses]
        return Step(batch, y, sample_weight, compared_with(y, y_pred), teacher, student, pairs, training)

    def _run_teacher(self, batch, training):
        return batch["teacher"]

    def _run_student(self, batch, training):
        """One forward pass over the images and, where there are, the extra images of the batch.

        BatchNorm's statistics are then those of all, and its moving averages see all.
        """
        roles = [role for role in EXTRA_IMAGES if role in batch]
        sets = [batch["image"], *(batch[role] for role in roles)]
        images = keras.tree.map_structure(lambda *parts: tf.concat(parts, 0), *sets) if roles else sets[0]
        y_pred, outputs = self._read_student(images, training=training)
        count = batch_size(batch)

        def part(nest, i):
            return keras.tree.map_structure(lambda x: x[i * count : (i + 1) * count], nest) if roles else nest

        student = part(outputs, 0) | {role: part(outputs, i) for i, role in enumerate(roles, 1)}
        student["step"] = tf.identity(self.step.value) if training else tf.zeros((), "int64")
        if "same" in batch:
            student["same"] = batch["same"]
        return part(y_pred, 0), student

    def _compute_terms(self, step):
        """The losses of each model that learns, `{metric of its total: {name: (weight, value)}}`."""
        losses = {}
        if self._compile_loss is not None and step.y is not None:
            value = self._compile_loss(step.y, step.y_pred, step.sample_weight)
            losses[STUDENT_LOSS] = self._student_loss_weight_variable.tensor(), value
        terms = zip(self.term_names, self._read_teacher.losses, self._weight_variables, step.pairs, strict=True)
        for name, loss, weight, pair in terms:
            value = loss(*pair, sample_weight=step.sample_weight, training=step.training)
            losses[name] = weight.tensor(), tf.cast(value, tf.float32)
        if self.losses:
            losses[REGULARIZATION] = 1.0, sum_of(self.losses)
        return {TOTAL: losses}

    def _apply_if_finite(self, values, updates):
        """Ends a training step: applies the gradients if every loss is finite, else notes the first that was not.

        Args:
            values: dict of the values of all losses.
            updates: list of `(optimizer, gradients, variables)`.
        """
        for optimizer, _, variables in updates:
            if not optimizer.built:
                with tf.init_scope():
                    optimizer.build(variables)
        finite = tf.math.is_finite(tf.stack(list(values.values())))

        def update():
            for optimizer, gradients, variables in updates:
                optimizer.apply(gradients, variables)
            return 0

        def note():
            bad = tf.stack([self.step.value, tf.argmin(tf.cast(finite, tf.int32))])
            self._first_non_finite.assign(tf.where(self._first_non_finite[0] < 0, bad, self._first_non_finite))
            return 0

        self._terms_noted = list(values)
        tf.cond(tf.reduce_all(finite), update, note)
        self.step.assign_add(1)

    def _track(self, step, losses, totals):
        count = batch_size(step.batch)
        self._loss_tracker.update_state(totals[TOTAL], sample_weight=count)
        values = self._statistics(step) | values_of(losses) | totals
        for name, tracker in self._trackers.items():
            if name in values:
                tracker.update_state(values[name], sample_weight=count)

    def _statistics(self, step):
        """What is tracked beside the losses, by name."""
        values = {}
        for term, loss, pair in zip(self.term_names, self._read_teacher.losses, step.pairs, strict=True):
            values |= {f"{term}_{name}": value for name, value in loss.statistics(*pair).items()}
        if AGREEMENT in self._trackers and "logits" in step.teacher:
            values[AGREEMENT] = share_of_equal(
                *(tf.argmax(side["logits"], -1) for side in (step.teacher, step.student))
            )
        return values

    # Around Keras's loops.

    def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **kwargs):
        """`keras.Model.fit`, which also raises `FloatingPointError` if a loss is not finite."""
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks.append(TerminateOnNonFinite())
            callbacks.set_model(self)
        else:
            callbacks = keras.tree.flatten(callbacks or [])
            if not any(isinstance(callback, TerminateOnNonFinite) for callback in callbacks):
                callbacks = [*callbacks, TerminateOnNonFinite()]
        return super().fit(x, y, batch_size, epochs, verbose, callbacks, **kwargs)

    def first_non_finite(self):
        """`(step, name of the loss)` of the first loss that was not finite in this fit, or None."""
        step, term = self._first_non_finite.numpy()
        return None if step < 0 else (int(step), self._terms_noted[term])

    def reset_first_non_finite(self):
        self._first_non_finite.assign([-1, -1])

    # Saving.

    # Arguments of the constructor, all of them attributes: Keras's objects, and plain values.
    SERIALIZED = ("teacher", "student", "distillation_losses")
    PLAIN = ("distillation_loss_weights", "student_loss_weight", "name")

    def get_config(self):
        objects = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in self.SERIALIZED}
        return objects | {name: getattr(self, name) for name in self.PLAIN}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        load = keras.saving.deserialize_keras_object
        return cls(**config | {name: load(config[name], custom_objects=custom_objects) for name in cls.SERIALIZED})


def number_duplicates(names):
    """Names made unique in order: `["kd", "kd"]` becomes `["kd", "kd_2"]`."""
    unique = []
    for name in names:
        count, candidate = 1, name
        while candidate in unique:
            count += 1
            candidate = f"{name}_{count}"
        unique.append(candidate)
    return unique


def is_regularized(layer):
    by_weights = any(variable.regularizer is not None for variable in layer.trainable_variables)
    layers = layer._flatten_layers()
    return by_weights or any(getattr(layer, "activity_regularizer", None) is not None for layer in layers)

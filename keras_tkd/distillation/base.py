"""The order of a step of distillation, and all else that its models have in common.

Who owns what:
- the losses say what they read (`DistillationLoss.inputs`) and own their projectors;
- `LayerOutputs` gets named outputs out of one forward pass, `TeacherReader` those of a teacher;
- `DistillationModel` has the order of a step: it runs the models, weights and sums the terms, and moves what learns;
- `Distiller` and `TriKD` say which models are frozen, and give each model that learns its `Objective`;
- `GuardedModel` looks, around Keras's loops, at what a step noted of labels and of values that are not finite;
- `LabelledModel` has the loss on the labels, the one term that is no distillation and that a subclass may override;
- `TrackedModel` has a metric for each term of a step, their total, and statistics beside them;
- `CheckedModel` computes a step on one batch before a training, and says what it sees;
- everything else (loops, callbacks, optimizers, saving) is Keras's.
"""

import keras
import tensorflow as tf

from keras_tkd.batches import ANCHOR, IMAGE, INDEX, SAME, TEACHER, get_class_ids, make_batch
from keras_tkd.distillation import model_validation, validation
from keras_tkd.distillation.batch_check import CheckedModel
from keras_tkd.distillation.forward_pass import (
    ForwardPass,
    add_outputs,
    build_outputs,
    run_student,
)
from keras_tkd.distillation.labelled_model import LabelledModel
from keras_tkd.distillation.non_finite import list_sources
from keras_tkd.distillation.objective import Objective, sum_regularization
from keras_tkd.distillation.own_layers import build_layers, describe_layers
from keras_tkd.distillation.terms import DistillationTerms
from keras_tkd.distillation.tracked_model import REGULARIZATION, STUDENT_LOSS, TOTAL, TrackedModel
from keras_tkd.losses.outputs import collect_outputs
from keras_tkd.teachers.averaged_loss import average_over_teachers
from keras_tkd.teachers.ensemble_reader import make_teacher_reader
from keras_tkd.utils import keras_graph
from keras_tkd.utils.fixed_attributes import FixedAttributes
from keras_tkd.utils.hyperparameters import Hyperparameter, check_number, read_hyperparameter
from keras_tkd.utils.layer_outputs import LayerOutputs, compute_output_shapes
from keras_tkd.utils.replicas import count_replicas, fill_empty, gather, measure_share, share_gradients

__all__ = ["DistillationModel"]

# Beside the student's configuration in a file: a `from_config` of a subclass's own hands all entries of the model's to
# the constructor, and this is no argument.
_OWN_LAYERS = "own_layers"


class DistillationModel(FixedAttributes, LabelledModel, TrackedModel, CheckedModel):
    """Base class of the models that train a student on labels and on what other models say.

    A subclass freezes, in its constructor, the models that are to stay as they are, and names their readers in
    `_frozen_readers`. If more models than the student learn, it adds them to `_trained_models`, and gives each an
    `Objective` in `_compute_objectives`.

    Args:
        distillation_losses: list of the losses as the user gave them.
        losses: the same as a list of `DistillationLoss`.
        teacher, student, distillation_loss_weights, student_loss_weight, gather, name: as for `Distiller`.
    """

    student_loss_weight = Hyperparameter()

    # Another would be saved, and would neither learn nor teach: the readers are of these.
    _FIXED = ("teacher", "student", "anchor", "gather")
    # Arguments of the constructor, which are attributes too: Keras's objects, and plain values.
    _OBJECTS = ("teacher", "student")
    _VALUES = ("distillation_loss_weights", "student_loss_weight", "gather", "name")
    _LABEL_LOSSES = (STUDENT_LOSS,)
    _REGULARIZATIONS = (REGULARIZATION,)

    def __init__(
        self,
        teacher,
        student,
        distillation_losses,
        losses,
        distillation_loss_weights,
        student_loss_weight,
        gather,
        name,
    ):
        # Inputs pass on as they come: each model casts them by its own policy.
        super().__init__(name=name, dtype="float32", autocast=False)
        self._scale_losses_for(student)
        self.teacher = teacher
        self.student = student
        self._distillation_losses = tuple(distillation_losses)
        self.student_loss_weight = student_loss_weight
        self.gather = validation.check_gather(gather, losses)
        # `distillation_losses` are the user's own objects; here they are as a step evaluates them.
        self._terms = DistillationTerms(average_over_teachers(losses, teacher), distillation_loss_weights)
        self._make_total()
        self._read_teacher = make_teacher_reader(teacher, collect_outputs(losses, "teacher_layers"))
        self._read_student = LayerOutputs(student, collect_outputs(losses, "student_layers"), "student")
        self.loss_layers = []
        self._to_build = None
        self._make_guards(self._terms.losses)
        # A step counter of its own: an optimizer under loss scaling does not count the steps that it skips.
        self.step = self.add_weight(
            shape=(), dtype="int64", initializer="zeros", trainable=False, aggregation="only_first_replica", name="step"
        )

    # Without a setter, as whatever else of a step that is traced already could not follow.
    @property
    def distillation_losses(self) -> tuple:
        """The losses, as they were given."""
        return self._distillation_losses

    @property
    def distillation_loss_weights(self) -> tuple[float, ...]:
        """Weights of the distillation losses; may be replaced as a whole while training, as in the constructor."""
        return self._terms.weights

    @distillation_loss_weights.setter
    def distillation_loss_weights(self, weights):
        self._terms.weights = weights

    @property
    def distillation_share(self) -> float:
        """Share of their weights with which the losses count. `WarmUp` sets it; it is not saved, and 1 after `fit`."""
        return self._terms.share.number

    @distillation_share.setter
    def distillation_share(self, share):
        check_number("distillation_share", share)
        self._terms.share.assign(share)

    def _end_fit(self):
        self.distillation_share = 1.0

    @property
    def term_names(self) -> list[str]:
        """Names of the distillation losses' metrics, in their order."""
        return self._terms.names

    def _scale_losses_for(self, model):
        """Lets `compile` scale the losses if `model`, which learns, has layers that compute in float16."""
        # Keras goes by the policy of the model that is compiled, whatever that of its layers.
        if any(layer.compute_dtype == "float16" for layer in keras_graph.flatten_layers(model)):
            self.dtype_policy = "mixed_float16"

    # What a subclass says.

    def _trained_models(self):
        """Returns the models that learn, as many as there are objectives."""
        return [self.student]

    @property
    def state_variables(self):
        """Variables that training changes, those of metrics aside: what a checkpoint of the training must hold."""
        frozen = [model for reader in self._frozen_readers() for model in reader.teachers]
        fixed = {id(variable) for model in frozen for variable in model.variables}
        return [variable for variable in self.variables if id(variable) not in fixed]

    # Building.

    def _build_from_graph(self):
        """Builds this model where teacher and student say what they take: errors then come before any data."""
        shape = keras_graph.get_input_shape(self.student)
        if shape is not None and self.teacher is not None and self.teacher.built:
            # A build of a subclass's own is for parts that its constructor, which goes on from here, has still to make.
            if type(self).build is DistillationModel.build:
                self.build(shape)
            else:
                self._build_parts(self._make_batch(shape))

    def _lock_state(self):
        # Keras refuses new parts of what is built. A model that its own constructor builds takes those of a subclass's,
        # as Keras's functional models do.
        pass

    def build(self, input_shape):
        """Builds student, teacher and the losses' layers, and checks that they go together.

        Args:
            input_shape: shape of a batch of inputs, or the dict of shapes of a batch as `fit` takes it.
        """
        # Also where all is built: keys of a batch that are not known are refused.
        shapes = self._make_batch(input_shape)
        if not self._trackers:
            self._build_parts(shapes)

    def _build_parts(self, shapes: dict):
        """Builds models, losses and trackers, once, for the shapes of a batch."""
        # `fit` builds while it traces the first step: variables must not be made inside that graph.
        with tf.init_scope():
            student = compute_output_shapes(self.student, self._read_student.names, shapes[IMAGE], "student")
            teacher = build_outputs(self._read_teacher, shapes)
            model_validation.check_built_models(self._read_teacher.teachers, self.student)
            # Again, now that both have all their weights.
            model_validation.check_apart(teacher=self.teacher, student=self.student)
            self._terms.build(teacher, student)
        self.loss_layers = self._terms.layers
        self._make_trackers()

    def _make_batch(self, x):
        return make_batch(x, keras_graph.get_input_names(self.student))

    def _other_models(self):
        """Returns the models that `optimizer` does not train, None for one that there is not, by their roles."""
        return {TEACHER: self.teacher}

    @property
    def losses(self):
        """Regularization losses of the student, of the losses' layers and of a subclass's own layers."""
        others = self._other_models().values()
        layers = [layer for layer in self.layers if not any(layer is model for model in others)]
        return [value for layer in layers for value in layer.losses]

    def add_loss(self, loss):
        """Raises `NotImplementedError`: a step runs the student and not `call`, so that the loss would be lost."""
        raise NotImplementedError(
            "A step of distillation runs the student, and not `call` of the model around it: a loss that is added "
            f"there would not count. Received: {type(self).__name__}.add_loss(...). Add the loss in the student or "
            "one of its layers, or to what your `compute_loss` returns"
        )

    def call(self, inputs, training=None):
        return self.student(self._make_batch(inputs)[IMAGE], training=training)

    # One step.

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        # Before the tape, which would keep all that a frozen model computes.
        batch = self._prepare(x)
        for reader in self._frozen_readers():
            model_validation.check_frozen(reader.role, reader.teachers)
        statistics = self._list_statistics()
        before = [tf.identity(variable.value) for variable in statistics]
        # A persistent tape also differentiates what happens inside a custom gradient: that costs, and XLA refuses it
        # where there is a branch in it.
        with tf.GradientTape(persistent=len(self._trained_models()) > 1) as tape:
            forward_pass = self._run(x, y, sample_weight, batch, training=True)
            objectives = self._compute_objectives(forward_pass)
            part = self._measure_part(forward_pass)
            scaled = [objective.optimizer.scale_loss(objective.total * part) for objective in objectives]
        gradients = [
            share_gradients(objective.optimizer, tape.gradient(loss, objective.variables))
            for loss, objective in zip(scaled, objectives, strict=True)
        ]
        sources = list_sources(forward_pass)
        self._guard.apply_if_finite(self.step.value, objectives, gradients, sources, statistics, before)
        self.step.assign_add(1)
        return self._track(forward_pass, objectives)

    def _list_statistics(self):
        """Returns the variables that running the models may move, such as BatchNorm's means, each once."""
        # What a loss keeps of every sample it guards itself: a copy of all in each step would cost more than the step.
        of_losses = [layer for loss in self._terms.losses if not loss.keeps_samples for layer in loss.layers]
        layers = [*self._trained_models(), *of_losses, *self._own_layers()]
        return list({id(variable): variable for layer in layers for variable in layer.non_trainable_weights}.values())

    def _measure_part(self, forward_pass: ForwardPass):
        """Returns which part of the batch's total a replica's own is: the optimizer sums what they all give."""
        if self.gather == "global":
            return 1 / count_replicas()  # each computes the whole total
        return measure_share(forward_pass.count)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        forward_pass = self._run(x, y, sample_weight, self._prepare(x), training=False)
        return self._track(forward_pass, self._compute_objectives(forward_pass))

    def _prepare(self, x):
        """Makes the batch, with the outputs of the models that do not learn."""
        batch, readers = self._make_batch(x), self._frozen_readers()
        validation.check_kept_outputs(batch, [reader.role for reader in readers])
        if not self.built:
            self.build(keras.tree.map_structure(lambda tensor: tuple(tensor.shape), x))
        return add_outputs(batch, readers)

    def _run(self, x, y, sample_weight, batch: dict, training: bool) -> ForwardPass:
        """Runs the models on a prepared batch."""
        teacher = self._run_teacher(batch, training)
        y_pred, student = run_student(self._read_student, batch, training)
        share = y, y_pred, sample_weight
        kept = {key: value for key, value in batch.items() if key in (INDEX, SAME, TEACHER, ANCHOR)}
        local = self.gather == "local"
        if not local:
            (y, y_pred, sample_weight), kept, teacher, student = gather((share, kept, teacher, student))
        y = self._label_guard.note(y, student["logits"].shape[-1], shared=local)
        count = tf.shape(student["logits"])[0]
        if local:
            nest = (y, y_pred, sample_weight), kept, teacher, student
            (y, y_pred, sample_weight), kept, teacher, student = fill_empty(nest)
        batch = batch | kept
        # Outside training every loss draws as in step 0, so that two evaluations of the same data agree.
        student["step"] = tf.identity(self.step.value) if training else tf.zeros((), "int64")
        if SAME in batch:
            student[SAME] = batch[SAME]
        # The student learns from a teacher that learns too as if it stood still.
        fixed = keras.tree.map_structure(tf.stop_gradient, teacher)
        labels, index = get_class_ids(y), batch.get(INDEX)
        if training:
            self._label_guard.note_samples(labels, index)
        pairs = self._terms.select_inputs(fixed, student, labels, index)
        return ForwardPass(x, y, sample_weight, batch, y_pred, share, count, teacher, student, pairs, training)

    def _run_teacher(self, batch: dict, training: bool):
        return batch[TEACHER]

    def _compute_objectives(self, forward_pass: ForwardPass) -> list[Objective]:
        """Returns an `Objective` for each model that learns, the student's first."""
        terms = {}
        value = self._compute_student_loss(forward_pass)
        if value is not None:
            terms[STUDENT_LOSS] = read_hyperparameter(self, "student_loss_weight"), value
        terms |= self._terms.compute(forward_pass.pairs, forward_pass.image_weight, forward_pass.training)
        if self.losses:
            terms[REGULARIZATION] = 1.0, sum_regularization(self.losses)
        return [Objective(TOTAL, self.optimizer, self.trainable_variables, terms)]

    # Saving.

    def get_config(self):
        # JSON has lists only.
        values = {name: getattr(self, name) for name in (*self._OBJECTS, *self._VALUES)}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        values |= {name: keras.saving.serialize_keras_object(values[name]) for name in self._OBJECTS}
        if own := describe_layers(self._own_layers()):
            values["student"] |= {_OWN_LAYERS: own}
        return values

    @classmethod
    def from_config(cls, config, custom_objects=None):
        load, own = keras.saving.deserialize_keras_object, config["student"].get(_OWN_LAYERS)
        model = cls(**config | {name: load(config[name], custom_objects=custom_objects) for name in cls._OBJECTS})
        if own and model.built:
            build_layers(model._own_layers(), own)
        elif own:
            # Keras builds the model next, and its `build` may build them.
            model._to_build = own
        return model

    def build_from_config(self, config):
        """Builds as Keras does, and the layers of a subclass's own that were built when the file was written."""
        super().build_from_config(config)
        if self._to_build:
            build_layers(self._own_layers(), self._to_build)

    def _own_layers(self):
        """Returns the layers of a subclass's own, in the order in which it sets them."""
        # What is set on a model of this package's own class takes no part in its steps.
        if type(self).__module__.startswith("keras_tkd."):
            return []
        given = {id(layer) for layer in (self.student, *self._other_models().values(), *self.loss_layers)}
        return [layer for layer in self.layers if id(layer) not in given]

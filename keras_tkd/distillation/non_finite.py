"""Losses and gradients that are not finite: such a step updates nothing, and the first is noted, with its origin."""

import keras
import tensorflow as tf

from keras_tkd.batches import ANCHOR, EXTRA_IMAGES, IMAGE, TEACHER, TEACHER_IMAGE
from keras_tkd.callbacks.termination import GRADIENT, TerminateOnNonFinite
from keras_tkd.distillation.forward_pass import ForwardPass
from keras_tkd.distillation.objective import Objective, collect_values
from keras_tkd.distillation.valid_samples import put_first
from keras_tkd.utils import replicas

__all__ = ["NonFiniteGuard", "add_termination", "find_non_finite", "list_sources"]

_IMAGES = "the images"
_LABELS = "the labels"
_SAMPLE_WEIGHTS = "the sample weights"
# What is given, and no model computed.
_GIVEN = (_IMAGES, _LABELS, _SAMPLE_WEIGHTS)
_OUTPUTS = "the {role}'s outputs"
# Of a loss: as far below 1 as the scale that Keras begins with is above. What overflows float16 here is above 10^9.
_LEAST_SCALE = 2.0**-15
_GRADIENT_ADVICE = (
    "all losses were finite; training stopped. A square root or a norm has such a gradient at 0: let the "
    "loss keep away from it, `sqrt(x + 1e-12)`. Where numbers are large, lower the learning rate."
)


def list_sources(forward_pass: ForwardPass) -> dict[str, list]:
    """Lists what losses are made of, by name, in the order in which it comes about: the floats among these tensors."""
    batch = forward_pass.batch
    nests = {
        _IMAGES: [batch[key] for key in (IMAGE, *EXTRA_IMAGES, TEACHER_IMAGE) if key in batch],
        _LABELS: forward_pass.y,
        _SAMPLE_WEIGHTS: forward_pass.sample_weight,
        _OUTPUTS.format(role=ANCHOR): batch.get(ANCHOR, []),
        _OUTPUTS.format(role=TEACHER): forward_pass.teacher,
        _OUTPUTS.format(role="student"): forward_pass.student,
    }
    # Labels and weights may be none.
    leaves = {name: [x for x in keras.tree.flatten(nest) if x is not None] for name, nest in nests.items()}
    return {name: [x for x in each if tf.as_dtype(x.dtype).is_floating] for name, each in leaves.items()}


def find_non_finite(sources: dict[str, list]) -> str | None:
    """Returns the name of the first of `list_sources` that holds a number that is not finite, or None."""
    place = int(_find_place(sources))
    return None if place == len(sources) else list(sources)[place]


def _find_place(sources):
    """Finds the position of the first source that is not finite, int64; that behind the last where all are."""
    finite = [tf.reduce_all([tf.reduce_all(tf.math.is_finite(x)) for x in each]) for each in sources.values()]
    return tf.argmin(tf.cast(tf.stack([*finite, False]), tf.int32))


class NonFiniteGuard:
    """Applies gradients where they and all losses are finite; otherwise notes step and loss, and applies nothing.

    The note stays on the device until `first` reads it, so that no step waits for another.
    """

    def __init__(self):
        # The step, and the positions of the loss in `_names` and of its source among all; -1 while there is none.
        self._note = tf.Variable(
            [-1, -1, -1],
            dtype="int64",
            trainable=False,
            name="first_non_finite",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self._names, self._sources = [], []

    def apply_if_finite(
        self,
        step,
        objectives: list[Objective],
        gradients: list[list],
        sources: dict[str, list],
        statistics: list,
        before: list,
    ):
        """Applies the gradients of all objectives, or of none; then what running the models has moved is put back.

        Args:
            step: number of the step, int64.
            objectives: list of `Objective`.
            gradients: for each of them, a gradient for each of its variables.
            sources: see `list_sources`.
            statistics: variables that running the models may have moved.
            before: their values before that.
        """
        for objective in objectives:
            # Keras's optimizers make their variables when they are first applied, and none may be made in a branch.
            if not objective.optimizer.built:
                with tf.init_scope():
                    objective.optimizer.build(objective.variables)
        finite = {name: tf.math.is_finite(value) for name, value in collect_values(objectives).items()}
        each = [_go_on(one.optimizer, own) for one, own in zip(objectives, gradients, strict=True)]
        finite[GRADIENT] = tf.reduce_all(each)
        # A step may be traced more than once, with other losses: without labels, for example.
        self._names += [name for name in finite if name not in self._names]
        self._sources = list(sources)
        places = tf.constant([self._names.index(name) for name in finite], "int64")

        def update(step, failed, gradients, *_):
            for objective, of_variables in zip(objectives, gradients, strict=True):
                objective.optimizer.apply(of_variables, objective.variables)

        def note(step, failed, _, sources, before):
            # Sources are looked at here alone: a step whose losses are finite pays nothing for them. Of several
            # replicas each has its own images, and the first source of any is the first.
            place = tf.reduce_min(replicas.gather(_find_place(sources)[None]))
            found = tf.stack([step, places[tf.argmax(tf.cast(failed, tf.int32))], place])
            self._note.assign(tf.where(self._note[0] < 0, found, self._note))
            for variable, value in zip(statistics, before, strict=True):
                variable.assign(value)

        failed = replicas.any_replica(tf.logical_not(tf.stack(list(finite.values()))))
        replicas.run_if(tf.reduce_any(failed), note, update, (step, failed, gradients, sources, before))

    def first(self) -> tuple[int, str] | None:
        """Returns `(step, name)` of the first loss since the last `reset` that was not finite, or None.

        The name is `GRADIENT` where the gradient was not finite and all losses were.
        """
        step, term, _ = self._note.numpy()
        return None if step < 0 else (int(step), self._names[term])

    def advise(self, frozen: list[str], advice: str) -> str:
        """Returns what to do about the loss that was noted, as the end of a sentence.

        Args:
            frozen: roles of the models that stay as they are, `"teacher"` for example.
            advice: what helps against a loss, or outputs of a model that learns, that are not finite.
        """
        _, term, place = self._note.numpy()
        if self._names[term] == GRADIENT:
            return _GRADIENT_ADVICE
        if not 0 <= place < len(self._sources):
            return advice  # all that the losses read was finite
        source = self._sources[place]
        first = f"{source} were the first that were not finite; "
        if source in _GIVEN:
            return f"{first}training stopped. Mend them, or leave them out."
        for role in frozen:
            if source == _OUTPUTS.format(role=role):
                return (
                    f"{first}training stopped. No learning rate mends that: look at the {role}'s weights, at the "
                    "pixels that it expects, and, if it computes in float16, at whether they are finite in float32."
                )
        return first + advice

    def reset(self):
        """Forgets what was noted."""
        self._note.assign([-1, -1, -1])


def _go_on(optimizer, gradients):
    """Returns whether an optimizer is to have gradients: all that are finite, and under loss scaling others too."""
    if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return _are_finite(gradients)
    # Gradients overflow now and then, and the optimizer, which skips such a step and scales by less, must see that. But
    # those that are not finite at any scale it would skip without a word, step after step.
    return tf.cond(optimizer.dynamic_scale < _LEAST_SCALE, lambda: _are_finite(gradients), lambda: tf.constant(True))


def _are_finite(gradients):
    """Returns whether all gradients, nested lists in which None is no gradient, are finite: a bool scalar."""
    parts = [each for each in keras.tree.flatten(gradients) if each is not None]
    # Of the rows of a table of embeddings, those that a batch reads.
    parts = [each.values if isinstance(each, tf.IndexedSlices) else each for each in parts]
    return tf.reduce_all([True, *(tf.reduce_all(tf.math.is_finite(each)) for each in parts)])


def add_termination(callbacks, model):
    """Returns the callbacks of a `fit` with a `TerminateOnNonFinite` among them: before all that keep what there is."""
    listed = callbacks.callbacks if isinstance(callbacks, keras.callbacks.CallbackList) else callbacks
    if any(isinstance(callback, TerminateOnNonFinite) for callback in keras.tree.flatten(listed or [])):
        return callbacks
    return put_first(callbacks, TerminateOnNonFinite(), model)

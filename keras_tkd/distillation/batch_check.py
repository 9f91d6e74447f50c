"""The first step of a training, computed on one batch without changing anything."""

import keras
import tensorflow as tf

from keras_tkd.batches import ANCHOR, TEACHER, get_batch_size
from keras_tkd.distillation import inspection, judgements, model_validation, self_check
from keras_tkd.distillation.forward_pass import ForwardPass
from keras_tkd.distillation.guarded_model import GuardedModel
from keras_tkd.distillation.non_finite import find_non_finite, list_sources
from keras_tkd.teachers.logits import shows_logits

__all__ = ["CheckedModel"]


class CheckedModel(GuardedModel):
    """A model that computes a step on one batch, on `check`, and says what it sees.

    A subclass has the parts of a step, `_make_batch`, `_prepare`, `_run` and `_compute_objectives`; returns in
    `_trained_models` and `_other_models` whom they are about; and names the terms that are no distillation.
    """

    # Names of terms: losses on the labels, and what is to be small.
    _LABEL_LOSSES = ()
    _REGULARIZATIONS = ()

    def check(self, batch, teacher=None) -> self_check.SelfCheck:
        """Looks at one batch before training: whether every term teaches, and whether the models go with the data.

        It computes once what the first training step would compute of the batch, and changes nothing: no weight, no
        statistics of BatchNorm, no optimizer, no metric, and nothing that random numbers are drawn from.

        Args:
            batch: what `fit` takes for one step, arrays or tensors: `(x, y)` or `(x, y, sample_weight)`, `x` being
                images or the dict of a batch, as an element of a `tf.data.Dataset` has them.
            teacher: `distillation.inspection.Inspection` of a teacher that is no longer in memory, where the batch
                brings its outputs; or None.

        Returns:
            `distillation.self_check.SelfCheck`: in `rows` each term with its value, its weight and its share of the
            norm of the gradient, in `models` what is seen of the models, and in `warnings` plain sentences, none if
            there is nothing to mend. Its text, which `print` shows, is a short table.

        Raises:
            TypeError: what is no batch, such as a whole data set.
            ValueError: before `compile`; inside a strategy's scope; whatever the first step of `fit` would refuse.
        """
        if tf.distribute.in_cross_replica_context():
            raise ValueError(
                "`check` computes a step on one device. Received: a call inside the scope of a "
                f"{type(tf.distribute.get_strategy()).__name__}. Call it outside: the model stays one of the strategy's"
            )
        if not self.compiled:
            raise ValueError(
                "`check` looks at the losses as they will be trained. Received: a model that is not compiled. Call "
                "`compile` first"
            )
        x, y, sample_weight = self_check.read_batch(batch, self._label_guard.read)
        if not self.built:
            self.build(keras.tree.map_structure(lambda tensor: tuple(tensor.shape), x))
        metrics, readers = list(self.metrics), self._frozen_readers()
        for reader in readers:
            model_validation.check_frozen(reader.role, reader.teachers)
        running = [reader for reader in readers if reader.role not in self._make_batch(x)]
        variables = [*self.variables, *self.metrics_variables, self._label_guard.variable]
        with inspection.keep_variables(variables), inspection.watch_models(running) as seen:
            batch = self._prepare(x)
            with tf.GradientTape(persistent=True) as tape:
                forward_pass = self._run(x, y, sample_weight, batch, training=True)
                several = self._label_guard.takes_several_classes(forward_pass.student["logits"].shape[-1])
                labels = None if several else self_check.read_labels(y)
                foreign = judgements.judge_labels(labels, forward_pass.student["logits"], self.loss)
                # Of labels that no output has, TensorFlow makes an error of its own, or NaN.
                objectives = [] if foreign else self._compute_objectives(forward_pass)
            tables = self_check.measure_terms(tape, objectives, self._trained_models())
        for metric in self.metrics:
            # Those of labels with several parts, which Keras makes when it first computes the loss.
            if not any(metric is own for own in metrics):
                metric.reset_state()
        warnings = [*(teacher.warnings if teacher else ()), *seen, *foreign]
        source = find_non_finite(list_sources(forward_pass))
        for rows in tables:
            warnings += judgements.judge_terms(rows, source, self._LABEL_LOSSES, self._REGULARIZATIONS)
        parameters = {TEACHER: teacher.parameters} if teacher else {}
        models = self._other_models() | {"student": self.student}
        parameters |= {role: inspection.count_parameters(one) for role, one in models.items() if one is not None}
        roles = [reader.role for reader in readers]
        models |= {TEACHER: self.teacher}
        linear = [role for role, one in models.items() if isinstance(one, keras.Model) and shows_logits(one)]
        rows, of_models = _describe_models(forward_pass, parameters, labels, roles, several, linear)
        return self_check.SelfCheck(
            samples=int(get_batch_size(batch)),
            rows=[row for table in tables for row in table],
            models=rows,
            warnings=warnings + of_models,
        )


def _describe_models(
    forward_pass: ForwardPass, parameters: dict, labels, frozen: list[str], several: bool, linear: list[str]
) -> tuple[list, list[str]]:
    """Measures the models on the batch of a forward pass, and says what is wrong with them.

    Args:
        forward_pass: `ForwardPass`.
        parameters: number of the models' weights by role; None, or no entry, where it is not known.
        labels: `(batch,)` class ids of the student's outputs, or None.
        frozen: roles of models that do not learn. A teacher that learns with its student need not know anything yet.
        several: whether each class is a yes or no of its own, so that no output names the one of an image.
        linear: roles of models whose graphs show that their outputs are logits.

    Returns:
        `(rows, warnings)`, a `ModelRow` for each model.
    """
    outputs = {TEACHER: forward_pass.teacher, "student": forward_pass.student}
    outputs |= {role: forward_pass.batch[role] for role in (ANCHOR,) if role in forward_pass.batch}
    shape = forward_pass.student["logits"].shape[1:]
    rows, warnings = {}, []
    for role, named in outputs.items():
        logits = named.get("logits")
        # Of other classes, or of layers alone: the labels do not say what is right.
        known = labels if logits is not None and logits.shape[1:] == shape else None
        classes = None if several else logits
        rows[role] = self_check.measure_model(role, classes, known, parameters.get(role))
        # An untrained student of few classes may happen to say 0..1 of all images of a batch.
        if role not in linear:
            warnings += judgements.judge_outputs(role, logits)
    warnings += judgements.judge_sizes(rows[TEACHER], rows["student"])
    if TEACHER in frozen and not several:
        logits = outputs[TEACHER].get("logits")
        named = None if logits is None else self_check.as_array(logits).argmax(-1)
        warnings += judgements.judge_accuracies(rows[TEACHER], rows["student"], labels, named)
    return list(rows.values()), warnings

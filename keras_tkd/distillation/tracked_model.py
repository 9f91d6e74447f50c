"""The metrics of a step: each term's, their total, and statistics beside them, all of them means over images."""

import keras
import tensorflow as tf

from keras_tkd.distillation import validation
from keras_tkd.distillation.forward_pass import ForwardPass, compute_agreement, select_predictions
from keras_tkd.distillation.guarded_model import GuardedModel
from keras_tkd.distillation.objective import Objective, collect_values
from keras_tkd.distillation.valid_samples import TotalMean
from keras_tkd.utils import keras_graph

__all__ = ["REGULARIZATION", "STUDENT_LOSS", "TOTAL", "TrackedModel"]

TOTAL = "loss"
STUDENT_LOSS = "student_loss"
REGULARIZATION = "regularization"
_AGREEMENT = "agreement"
# Not every model tracks all of these; a loss may have the name of none, so that a name means one thing everywhere.
_OWN_NAMES = (TOTAL, STUDENT_LOSS, REGULARIZATION, _AGREEMENT)


class TrackedModel(GuardedModel):
    """A model that tracks the values of its steps, one metric for each.

    A subclass has its `DistillationTerms` in `_terms`. Its constructor then calls `_make_total`, and its build
    `_make_trackers`; its steps return what `_track` returns.
    """

    def _make_total(self):
        """Makes the mean of the total; raises `ValueError` for a loss with the name of another value of a step."""
        validation.check_loss_names(_OWN_NAMES, self._terms.names, self._terms.statistic_names)
        self._trackers = {}
        # Names of the trackers that the step traced last gave nothing.
        self._silent = ()
        self._total = TotalMean([STUDENT_LOSS, *self._terms.names, REGULARIZATION], name=TOTAL)

    def _make_trackers(self):
        """Makes the mean of each value that a step may track."""
        self._trackers = {name: keras.metrics.Mean(name=name) for name in self._metric_names()}

    def _metric_names(self):
        """Returns the names of all that a step may track."""
        return [STUDENT_LOSS, *self._terms.names, *self._terms.statistic_names, _AGREEMENT, REGULARIZATION]

    def _track(self, forward_pass: ForwardPass, objectives: list[Objective]):
        """Updates all metrics; returns their values so far, by name."""
        # Means over images and not over batches: the last batch of an epoch may be smaller, and in another some images
        # may have no negative.
        count = forward_pass.count
        # A row that stands for no image is none.
        counts = self._terms.count_samples(forward_pass.pairs, at_most=count)
        totals = {objective.name: objective.total for objective in objectives}
        values = self._compute_statistics(forward_pass) | collect_values(objectives) | totals
        self._total.update_state(objectives[0].terms, counts, count)
        for name, tracker in self._trackers.items():
            if name in values:
                tracker.update_state(values[name], sample_weight=counts.get(name, count))
        # The metrics given to `compile` are summed over the replicas, each of which counts its own share.
        y, y_pred, sample_weight = forward_pass.share
        y_pred = select_predictions(y, y_pred)
        self._silent = tuple(name for name in self._trackers if name not in values)
        results = self.compute_metrics(forward_pass.x, y, y_pred, sample_weight=sample_weight)
        # Only now: Keras makes the metrics that were given to `compile` when it first updates them.
        validation.check_metric_names([TOTAL, *self._trackers], self.metrics)
        return results

    def get_metrics_result(self):
        """Returns the metrics' values so far by name, over all replicas, without trackers that were given nothing."""
        # A tracker that was given nothing says 0, which would look like a value in a curve. Left out here, for Keras
        # takes an epoch's values from here only if they have the names of a step's: and a step's are, of several
        # replicas, the mean of what each has of its share.
        return {name: result for name, result in super().get_metrics_result().items() if name not in self._silent}

    def _compute_statistics(self, forward_pass: ForwardPass):
        """Computes the values that are tracked beside the losses, by name."""
        values = self._terms.compute_statistics(forward_pass.pairs)
        teacher, student = forward_pass.teacher.get("logits"), forward_pass.student["logits"]
        # Of other classes, of a single one, or of layers alone: there is nothing to agree on.
        if teacher is None or teacher.shape[1:] != student.shape[1:]:
            return values
        if self._label_guard.takes_several_classes(student.shape[-1]):
            # Of each class a yes or no: a logit above 0, or not.
            values[_AGREEMENT] = compute_agreement(tf.cast(teacher > 0, tf.int64), tf.cast(student > 0, tf.int64))
        elif student.shape[-1] != 1:
            values[_AGREEMENT] = compute_agreement(tf.argmax(teacher, -1), tf.argmax(student, -1))
        return values

    @property
    def metrics(self):
        # The total's place is the first, as Keras has it; its own mean of totals knows nothing of what the terms count.
        others = [
            metric for metric in super().metrics if metric not in (keras_graph.get_loss_tracker(self), self._total)
        ]
        return [self._total, *others]

    def find_terms_without_samples(self) -> list[str]:
        """Returns the names of the distillation losses that no sample of the epoch so far had a value for."""
        return [name for name in self._total.find_empty() if name in self._terms.names]

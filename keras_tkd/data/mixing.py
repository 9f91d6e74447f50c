"""mixup and CutMix: images mixed with others, and labels with theirs, from one seed per image."""

import dataclasses
import functools
import math

import numpy as np
import scipy.special
import tensorflow as tf

from keras_tkd.data.augmentation import apply_view, make_view_seeds
from keras_tkd.data.crops import make_box_mask, scale_pixels
from keras_tkd.data.draws import MIXING, draw_choice
from keras_tkd.data.options import PARALLEL_CALLS, as_written, deterministic_options
from keras_tkd.data.permutation import permute
from keras_tkd.data.sampling import make_stateless_seed
from keras_tkd.data.validation import check_seed
from keras_tkd.utils.labels import read_class_ids
from keras_tkd.utils.multi_hot import is_multi_hot, read_multi_hot
from keras_tkd.utils.number_checks import check_whole, is_finite

__all__ = ["Mixing", "apply_mixed_view", "check_mixing", "mix_batches"]

_QUANTILES = 4096


@dataclasses.dataclass(frozen=True)
class Mixing:
    """A way to mix each image with another one: mixup (Zhang et al., 2018), CutMix (Yun et al., 2019), or both.

    An image x and its partner x', with labels y and y', become

        mixup:   l x + (1 - l) x'
        CutMix:  x, with a box out of x' pasted over it, of the area (1 - l) before it is cut off at the image's edges

    and the label becomes l y + (1 - l) y'. l is drawn from Beta(alpha, alpha) for each image; with CutMix it is then
    the share of the pixels that are x's. Where both are given, a fair coin for each image decides between them.

    Args:
        num_classes: number of classes, >= 2: mixed labels are rows of as many numbers.
        mixup, cutmix: alpha > 0 of each, or None. One at least is given.
        drawn_for: `(height, width)` of the images for which boxes are drawn, and by which labels are mixed; in images
            of another size a box covers the same part, to half a pixel of theirs. None for the images' own size.

    Raises:
        ValueError: neither `mixup` nor `cutmix`; numbers out of range.
    """

    num_classes: int
    mixup: float | None = None
    cutmix: float | None = None
    drawn_for: tuple[int, int] | None = None

    def __post_init__(self):
        check_whole("num_classes", self.num_classes, 2)
        given = [alpha for alpha in (self.mixup, self.cutmix) if alpha is not None]
        if not given or not all(is_finite(alpha) and alpha > 0 for alpha in given):
            raise ValueError(
                "`mixup` and `cutmix` must be numbers > 0, alpha of Beta(alpha, alpha), or None, one of them given. "
                f"Received: mixup={self.mixup!r}, cutmix={self.cutmix!r}"
            )

    def read_labels(self, labels):
        """Returns class ids, or multi-hot rows of images of several classes, as an array.

        Raises:
            ValueError: labels that are no class ids from 0 to `num_classes` - 1, and no rows of `num_classes`.
        """
        if is_multi_hot(labels):
            rows = read_multi_hot(labels)
            if rows.shape[1] != self.num_classes:
                raise ValueError(
                    f"Multi-hot rows that are mixed must be of {self.num_classes} classes. Received: shape {rows.shape}"
                )
            return rows
        ids = read_class_ids(labels)
        foreign = ids[(ids < 0) | (ids >= self.num_classes)]
        if foreign.size:
            raise ValueError(
                f"Labels that are mixed must be class ids from 0 to {self.num_classes - 1}. Received: {foreign[0]}. "
                "Number the classes from 0, or give more `num_classes`"
            )
        return ids

    def draw_partners(self, places, seed, view, count: int):
        """Draws the sample that each is mixed with: every sample is the partner of exactly one.

        A sample may be its own partner, and is then not mixed: one of all on average.

        Args:
            places: int64 `(batch,)`, samples in [0, `count`).
            seed, view: integers or scalar tensors; nothing else decides the draw.
            count: number of samples.

        Returns:
            int64 `(batch,)`.
        """
        return permute(places, (seed, view, 3), count)

    def mix_images(self, images, partners, seeds):
        """Mixes images with those of their partners.

        Args:
            images, partners: `(batch, height, width, channels)`, of one dtype. Whole numbers are rounded.
            seeds: int64 `(batch,)` in [0, 2^31 - 1), one per image. Equal seeds give equal shares, boxes and coins.

        Returns:
            `(mixed, shares)`: images of the same shape and dtype, and the share l of each that is the image's own,
            float32 `(batch,)`.
        """
        images, partners = tf.convert_to_tensor(images), tf.convert_to_tensor(partners)
        seeds = tf.cast(seeds, tf.int64)
        if self.cutmix is None:
            return self._mix_up(images, partners, seeds)
        pasted, shares = self._paste(images, partners, seeds)
        if self.mixup is None:
            return pasted, shares
        blended, blended_shares = self._mix_up(images, partners, seeds)
        by_mixup = draw_choice(seeds, MIXING, 2) == 1
        mixed = tf.where(by_mixup[:, None, None, None], blended, pasted)
        return mixed, tf.where(by_mixup, blended_shares, shares)

    def mix_labels(self, labels, partner_labels, shares):
        """Mixes labels as their images are mixed.

        Args:
            labels, partner_labels: `(batch,)` class ids, or multi-hot rows `(batch, num_classes)`.
            shares: float32 `(batch,)`.

        Returns:
            float32 `(batch, num_classes)`; of class ids rows that sum to 1.
        """
        rows, others = self.make_rows(labels), self.make_rows(partner_labels)
        return others + shares[:, None] * (rows - others)

    def make_rows(self, labels):
        """Makes rows of class ids, one-hot, or of rows, float32 `(batch, num_classes)`: nothing is mixed into them."""
        if len(labels.shape) == 2:
            return tf.cast(labels, tf.float32)
        return tf.one_hot(tf.cast(labels, tf.int64), self.num_classes)

    def _draw_shares(self, alpha, seeds):
        # Of Beta(alpha, alpha) 4,096 quantiles, each as likely: there is no function of a seed that draws it exactly.
        return tf.gather(tf.constant(_compute_quantiles(alpha), tf.float32), draw_choice(seeds, MIXING + 1, _QUANTILES))

    def _mix_up(self, images, partners, seeds):
        shares = self._draw_shares(self.mixup, seeds)
        dtype = images.dtype if images.dtype.is_floating else tf.float32
        own, other = tf.cast(images, dtype), tf.cast(partners, dtype)
        blended = other + tf.cast(shares, dtype)[:, None, None, None] * (own - other)
        return (blended if images.dtype.is_floating else tf.cast(tf.round(blended), images.dtype)), shares

    def _paste(self, images, partners, seeds):
        sizes = tuple(images.shape[1:3])
        drawn_sizes = self.drawn_for or sizes
        side = tf.sqrt(1 - tf.cast(self._draw_shares(self.cutmix, seeds), tf.float64))
        box = []
        for axis, size in enumerate(drawn_sizes):
            length = tf.cast(tf.round(side * size), tf.int64)
            start = draw_choice(seeds, MIXING + 2 + axis, size) - length // 2
            box.append((tf.maximum(start, 0), tf.minimum(start + length, size)))
        (top, bottom), (left, right) = box
        area = tf.cast((bottom - top) * (right - left), tf.float64)
        top, bottom = (scale_pixels(edge, sizes[0], drawn_sizes[0]) for edge in (top, bottom))
        left, right = (scale_pixels(edge, sizes[1], drawn_sizes[1]) for edge in (left, right))
        inside = make_box_mask(top, left, bottom, right, *sizes)
        return tf.where(inside, partners, images), tf.cast(1 - area / math.prod(drawn_sizes), tf.float32)


@functools.lru_cache(maxsize=8)
def _compute_quantiles(alpha):
    return scipy.special.betaincinv(alpha, alpha, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)


def apply_mixed_view(images, index, partners, partner_index, seed, view, augment, mix):
    """Returns images of samples in one of their views, mixed with their partners' in the view of the same number.

    All that decides them is a function of the seed, the ids and `view`: so what a model says of them can be kept.

    Args:
        images, index, seed, view, augment: as in `apply_view`.
        partners, partner_index: images and ids of the samples that each is mixed with.
        mix: the `Mixing`.

    Returns:
        `(mixed, shares)` as `Mixing.mix_images` does.
    """
    own = apply_view(images, index, seed, view, augment)
    other = apply_view(partners, partner_index, seed, view, augment)
    return mix.mix_images(own, other, make_view_seeds(index, seed, view))


def check_mixing(mix):
    """Raises `ValueError` unless `mix` is None or a `Mixing`."""
    if mix is not None and not isinstance(mix, Mixing):
        raise ValueError(
            "`mix` must be a keras_tkd.data.Mixing, such as Mixing(num_classes=10, mixup=0.2), or None. "
            f"Received: mix={mix!r}"
        )


def mix_batches(dataset, mix, *, seed):
    """Mixes the images of each batch of any data set among themselves; the labels become rows.

    A batch is a pure function of its own contents, `seed`, and its number in the pass. For the pipelines of this
    package, `image_dataset(..., mix=mix)` and `triplet_dataset` mix samples of the whole data set instead, afresh in
    each epoch, and a teacher cache can keep what the teacher says of them.

    Args:
        dataset: `tf.data.Dataset` of batches `(images, labels)`: images of `(batch, height, width, channels)`, labels
            class ids `(batch,)` from 0 to `mix.num_classes` - 1.
        mix: a `Mixing`.
        seed: integer in [0, 2^30). A data set that repeats (`repeat()`) before it is mixed draws afresh in each pass.

    Returns:
        `tf.data.Dataset` of `(images, labels)`, labels float32 `(batch, mix.num_classes)`.

    Raises:
        ValueError: batches of another form.
        tf.errors.InvalidArgumentError: while it runs, for labels that are no classes of `mix`.
    """
    check_seed(seed)
    spec = dataset.element_spec
    pair = isinstance(spec, tuple) and len(spec) == 2 and all(isinstance(part, tf.TensorSpec) for part in spec)
    if not pair or [part.shape.rank for part in spec] != [4, 1] or not spec[1].dtype.is_integer:
        raise ValueError(
            "Batches that are mixed must be (images, labels), (batch, height, width, channels) and class ids of shape "
            f"(batch,). Received: {spec}. Mix before other entries are added to a batch"
        )

    @as_written
    def mix_batch(number, batch):
        images, labels = batch
        message = f"Labels that are mixed must be class ids from 0 to {mix.num_classes - 1}"
        with tf.control_dependencies([tf.debugging.Assert(_are_classes(labels, mix.num_classes), [message, labels])]):
            places = tf.range(tf.shape(labels)[0])
        # Another number of the seed than that of the views, or both would be of one permutation.
        order = tf.random.experimental.stateless_shuffle(
            places, make_stateless_seed(seed + 2**30, number), alg="philox"
        )
        seeds = make_view_seeds(tf.cast(places, tf.int64), seed, number)
        mixed, shares = mix.mix_images(images, tf.gather(images, order), seeds)
        return mixed, mix.mix_labels(labels, tf.gather(labels, order), shares)

    return dataset.enumerate().map(mix_batch, num_parallel_calls=PARALLEL_CALLS).with_options(deterministic_options())


def _are_classes(labels, num_classes):
    ids = tf.cast(labels, tf.int64)
    return tf.reduce_all((ids >= 0) & (ids < num_classes))

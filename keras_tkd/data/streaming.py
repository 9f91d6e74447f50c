"""Images that stay on disk, and are read window by window."""

import numpy as np
import tensorflow as tf

from keras_tkd.data.arrays import resize_uint8
from keras_tkd.data.options import PARALLEL_DECODES, as_written, count_batches, deterministic_options
from keras_tkd.data.sampling import draw_integers
from keras_tkd.data.sources import ImageSource, Window

__all__ = ["ImageStream", "RandomAccessStream", "RecordStream"]

# Files that are read in turn, so that a window mixes samples of them all; each takes a buffer of 256 KB. At most half
# of the files are open: if all were, the windows of all passes would hold the same samples.
_OPEN_FILES = 16


class ImageStream(ImageSource):
    """Images of a split that are left on disk, for the pipelines in place of an array; `load` makes them.

    A pass in training goes through the samples in an order drawn from the seed, and cuts what comes into windows of
    equal size, at most `shuffle_window` samples. Of files of images, and of decoded images (`decoded_cache`), all
    orders are equally likely. TFRecord files are read from a place drawn from the seed on, in an order drawn from it,
    half of them in turn but at most sixteen. Inside a window everything is as in memory:

    - Every sample is an anchor exactly once per pass, and the number of batches is known.
    - A negative is never of its anchor's class, is uniform over the samples of other classes *of the window*, and drawn
      afresh in every pass; likewise positives and partners. A window of one class has no negatives, which is an error
      when it comes.
    - A batch is a pure function of (seed, epoch, step), with the batch size and `shuffle_window` given; each pass is
      the next epoch, and the first may be any.
    - Views are those of (seed, sample, view): the same as in memory, to the bit.
    - With a window that holds all samples, all batches are those of images in memory, to the bit.

    What cannot hold: a negative comes from the window rather than from the whole set. Samples that are far apart in
    TFRecord files meet in no window, so that batches mix less than in memory. Records that are stored class by class
    need a window of several classes; tensorflow-datasets stores them in an order of its own, without regard to classes.

    With `training=False`, batches with drawn images go through a folder window by window, each of which holds every
    W-th sample, where W is the number of windows: in the order of ids, each would hold one class. Batches without drawn
    images are in the order of ids, and so are those of TFRecord files.

    Memory: while a window is in use, the next one is read ahead; twice `shuffle_window` images are held, whatever the
    size of the data set, and for a moment up to half as many more while one takes the other's place. Beside it there
    are a few bytes for each sample.

    `len`, `shape`, `dtype` and rows by id are those of the array that it stands for. The id of a sample is its position
    in the order in which it is stored, as in the arrays that `load` reads.

    Args:
        positions: ascending positions of the samples of this stream, out of all that are stored.
        decode: function from a record, whatever the kind of stream calls so, to the image, uint8 and of any size, to be
            run by tf.data.
        image_shape: `(height, width, channels)`, to which images are resized.
        shuffle_window: samples in memory together, >= 1.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, positions, decode, image_shape, shuffle_window):
        self._positions, self._decode = np.asarray(positions), decode
        self.shape = (len(self._positions), *image_shape)
        # As few windows as `shuffle_window` allows, and these of equal size: a short last window would mix less.
        self.window_count = count_batches(len(self), shuffle_window)
        self.window_size = count_batches(len(self), self.window_count)

    def __len__(self):
        return self.shape[0]

    def __array__(self, *_, **__):
        raise TypeError(
            f"The images of a stream are on disk, and are not made an array of: {len(self):,} images of "
            f"{self.shape[1:]}. Load the data set without `shuffle_window` (--shuffle_window)"
        )

    @as_written
    def __getitem__(self, index):
        """Returns the images of a slice, or of an array of ids, as an array; each is looked for where it is stored."""
        dataset = self._find_records(self._positions[index]).map(self._decode_to_shape)
        images = list(dataset.with_options(deterministic_options()).as_numpy_iterator())
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), self.dtype)

    @property
    def identity(self):
        """Array of integers that differ if the images do, as far as that is known without decoding them."""
        return np.array(self.shape)

    def take(self, indices):
        """Returns the stream of some of these samples.

        Args:
            indices: ascending ids; a sample's place among them is its id in the new stream.
        """
        raise NotImplementedError

    def windows(self, seed=None, spread=False, beside=None):
        return self._cut_windows(self._decode_records(self._list_records(seed, spread), beside))

    def encoded_windows(self, seed=None, spread=False):
        return self._cut_windows(self._list_records(seed, spread))

    def decode_window(self, window, beside=None):
        """Returns a window of `encoded_windows` as one of images; `beside` is as in `windows`."""
        return _EncodedWindow(window, self, beside)

    def _cut_windows(self, samples):
        # Read ahead sample by sample, not window by window: once a window is put together, the one before it has been
        # used, and never more than two are in memory for long.
        windows = samples.prefetch(self.window_size).batch(self.window_size)

        def sort_by_id(ids, images, *others):
            # Ids and their rows are sorted; the images, which are large, stay where they are.
            rows = tf.argsort(ids)
            return Window(tf.gather(ids, rows), tf.cast(rows, tf.int64), images, others)

        return windows.map(sort_by_id)

    @as_written
    def batches(self, batch_size, first=0, every=1):
        records = self._list_records().skip(first * batch_size)
        if every > 1:
            # Before anything is decoded.
            of_every = records.enumerate().filter(lambda number, _: number // batch_size % every == 0)
            records = of_every.map(lambda _, record: record)
        return self._decode_records(records).batch(batch_size)

    def _list_records(self, seed=None, spread=False):
        """Makes a data set of ids and records, in the order that `windows` documents for its arguments."""
        raise NotImplementedError

    def _find_records(self, positions):
        """Makes a data set of the records at some positions."""
        raise NotImplementedError

    def check_beside(self, other):
        if other._decode is not self._decode or not np.array_equal(other._positions, self._positions):
            raise ValueError(
                "Streams whose images are shown side by side must be of the same samples, out of one "
                f"`load(..., teacher_image_size=...)`. Received: streams of {len(self)} and of {len(other)} images"
            )

    def _decode_records(self, records, beside=None):
        def decode(sample, record):
            return sample, *self.decode_one(record, beside)

        return records.map(decode, num_parallel_calls=PARALLEL_DECODES)

    def decode_one(self, record, beside=None):
        """Returns the image of a record, and after it that of the stream `beside`, if there is one."""
        # Once, however many sizes it is resized to.
        image = self._decode(record)
        return [stream._resize(image) for stream in ((self,) if beside is None else (self, beside))]

    def _decode_to_shape(self, record):
        return self._resize(self._decode(record))

    def _resize(self, image):
        size = self.shape[1:3]
        if image.shape.is_fully_defined():
            image = image if image.shape[:2] == size else resize_uint8(image, size)
        else:
            fits = tf.reduce_all(tf.equal(tf.shape(image)[:2], size))
            image = tf.cond(fits, lambda: image, lambda: resize_uint8(image, size))
        return tf.ensure_shape(image, self.shape[1:])


class _EncodedWindow:
    """A `Window` whose images are decoded when they are gathered.

    Args:
        window: the `Window`, with records in place of images.
        stream: the `ImageStream` that they are of.
        beside: stream of the same samples as a teacher sees them; None for none.
    """

    def __init__(self, window, stream, beside):
        self.ids = window.ids
        self._window, self._stream, self._beside = window, stream, beside

    def gather_images(self, places):
        return self._gather(places, None)[0]

    def gather_all(self, places):
        return self._gather(places, self._beside)

    def _gather(self, places, beside):
        streams = [self._stream] if beside is None else [self._stream, beside]
        return tf.map_fn(
            lambda record: self._stream.decode_one(record, beside),
            self._window.gather_images(places),
            fn_output_signature=[tf.TensorSpec(stream.shape[1:], stream.dtype) for stream in streams],
            parallel_iterations=PARALLEL_DECODES,
        )


class RandomAccessStream(ImageStream):
    """A stream of images each of which can be read by itself: a record is the position of a sample.

    Args:
        decode: function from a position, a scalar int64 tensor, to the image, uint8, of any size, to be run by tf.data.
        checksums: `(n,)`, an integer for each image that is stored, which differs if the image does.
        image_shape, shuffle_window: as for `ImageStream`.
        kept: ascending positions of the samples of this stream; None for all.
    """

    def __init__(self, decode, checksums, image_shape, shuffle_window, kept=None):
        super().__init__(np.arange(len(checksums)) if kept is None else kept, decode, image_shape, shuffle_window)
        self._arguments = decode, checksums, image_shape, shuffle_window
        self._checksums = np.asarray(checksums)
        with tf.device("CPU:0"):
            self._places = tf.constant(self._positions, tf.int64)

    @property
    def identity(self):
        return np.concatenate([np.array(self.shape, self._checksums.dtype), self._checksums[self._positions]])

    def take(self, indices):
        return RandomAccessStream(*self._arguments, kept=self._positions[indices])

    def _list_records(self, seed=None, spread=False):
        ids = tf.range(len(self), dtype=tf.int64)
        if seed is not None:
            # Of an order that is uniform over all orders, every window is a fair draw from all samples.
            ids = tf.random.experimental.stateless_shuffle(ids, seed, alg="philox")
        elif spread:
            ids = tf.gather(ids, tf.argsort(ids % self.window_count, stable=True))
        return tf.data.Dataset.from_tensor_slices((ids, tf.gather(self._places, ids)))

    def _find_records(self, positions):
        return tf.data.Dataset.from_tensor_slices(np.asarray(positions, np.int64))


class RecordStream(ImageStream):
    """A stream of images in TFRecord files.

    Args:
        files: paths of the files.
        lengths: number of samples in each.
        decode: function from a serialized example to the image, uint8, of any size, to be run by tf.data.
        image_shape, shuffle_window: as for `ImageStream`.
        kept: ascending positions of the samples of this stream, out of all that the files hold; None for all.
    """

    def __init__(self, files, lengths, decode, image_shape, shuffle_window, kept=None):
        starts = np.cumsum([0, *lengths])
        super().__init__(np.arange(starts[-1]) if kept is None else kept, decode, image_shape, shuffle_window)
        self._arguments = files, lengths, decode, image_shape, shuffle_window
        with tf.device("CPU:0"):
            self._files, self._starts = tf.constant([str(file) for file in files]), tf.constant(starts, tf.int64)
            self._ids = None
            if kept is not None:
                ids = np.full(starts[-1], -1)
                ids[self._positions] = np.arange(len(self))
                self._ids = tf.constant(ids, tf.int64)

    def take(self, indices):
        return RecordStream(*self._arguments, kept=self._positions[indices])

    def _list_records(self, seed=None, spread=False):
        # Records are found one after another: without a seed there is no other order than that of the files.
        if seed is None:
            return self._read(self._starts[:-1], self._starts[1:], open_files=1)
        files_seed, place_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        files = tf.random.experimental.stateless_shuffle(tf.range(len(self._files)), files_seed, alg="philox")
        starts, stops = tf.gather(self._starts, files), tf.gather(self._starts, files + 1)
        # The pass begins inside the first file, so that each pass cuts its windows at other samples; what the file has
        # before that place comes last.
        place = starts[:1] + draw_integers(place_seed, stops[:1] - starts[:1])
        starts, stops = tf.concat([place, starts[1:], starts[:1]], 0), tf.concat([stops, place], 0)
        return self._read(starts, stops, open_files=max(1, min(_OPEN_FILES, len(self._files) // 2)))

    def _read(self, starts, stops, open_files):
        """Makes a data set of ids and serialized examples from runs of positions, each inside one file."""

        def read(start, stop):
            return self._open_at(start).take(stop - start).enumerate(start)

        runs = tf.data.Dataset.from_tensor_slices((starts, stops))
        records = runs.interleave(read, cycle_length=open_files, block_length=1, num_parallel_calls=None)
        if self._ids is None:
            return records
        # Samples that were left out have the id -1; they are skipped before anything is decoded.
        identified = records.map(lambda position, record: (self._ids[position], record))
        return identified.filter(lambda sample, _: sample >= 0)

    def _find_records(self, positions):
        return tf.data.Dataset.from_tensor_slices(positions).flat_map(lambda position: self._open_at(position).take(1))

    def _open_at(self, position):
        """Makes the data set of the records of a file, from a position in it on."""
        file = tf.searchsorted(self._starts[:-1], [position], side="right")[0] - 1
        return tf.data.TFRecordDataset(self._files[file]).skip(position - self._starts[file])

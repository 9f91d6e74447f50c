"""Images that stay on disk, in the TFRecord files of a prepared data set, and are read window by window."""

import numpy as np
import tensorflow as tf

from keras_tkd.data.options import PARALLEL_CALLS, deterministic_options, steps
from keras_tkd.data.sampling import draw
from keras_tkd.data.sources import ImageSource, Window

# Files read from in turn: what a window mixes, and a buffer of 256 KB each. Half of them at most: if all were open at
# once, the windows of all passes would hold the same samples.
OPEN_FILES = 16


class ImageStream(ImageSource):
    """The images of a split, left on disk: what the pipelines take in place of an array.

    A pass in training begins at a sample drawn from the seed, goes through the files in an order drawn from it, half of
    them in turn but at most sixteen, and cuts what comes into windows of equal size, at most `shuffle_window` samples.
    Inside a window everything is as in memory:

    - Every sample is an anchor exactly once per pass, and the number of batches is known.
    - A negative is never of its anchor's class, is uniform over the samples of other classes *of the window*, and drawn
      afresh in every pass; likewise positives and partners. A window of one class has no negatives, which is an error
      when it comes.
    - A batch is a pure function of (seed, epoch, step), with the batch size and `shuffle_window` given; each pass is
      the next epoch, and the first may be any.
    - Views are those of (seed, sample, view): the same as in memory, to the bit.
    - With a window that holds all samples, all batches are those of images in memory, to the bit.

    What cannot hold: samples that are far apart on disk meet in no window, so that batches mix less than in memory, and
    a negative comes from the window rather than from the whole set. A data set that is stored class by class needs a
    window of several classes; tensorflow-datasets stores samples in an order of its own, without regard to classes.

    Memory: while a window is in use, the next one is read ahead; twice `shuffle_window` images are held, whatever the
    size of the data set, and for a moment up to half as many more while one takes the other's place. Beside it there
    are a few bytes for each sample.

    `len`, `shape`, `dtype` and rows by id are those of the array that it stands for. The id of a sample is its position
    in the order in which it is stored, as in the arrays that `load` reads.

    Args:
        files: paths of TFRecord files.
        lengths: number of samples in each.
        decode: function from a serialized example to the image, uint8, to be run by tf.data.
        image_shape: `(height, width, channels)`.
        shuffle_window: samples in memory together, >= 1.
        kept: ascending positions of the samples there are, out of all that the files hold; None for all.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files, lengths, decode, image_shape, shuffle_window, kept=None):
        self._arguments = files, lengths, decode, image_shape, shuffle_window
        starts = np.cumsum([0, *lengths])
        self._positions = np.arange(starts[-1]) if kept is None else np.asarray(kept)
        self.shape = (len(self._positions), *image_shape)
        self.window_count = steps(len(self), shuffle_window)
        self.window_size = steps(len(self), self.window_count)
        self._decode = decode
        with tf.device("CPU:0"):
            self._files, self._starts = tf.constant([str(file) for file in files]), tf.constant(starts, tf.int64)
            self._ids = None
            if kept is not None:
                ids = np.full(starts[-1], -1)
                ids[self._positions] = np.arange(len(self))
                self._ids = tf.constant(ids, tf.int64)

    def __len__(self):
        return self.shape[0]

    def __array__(self, *_, **__):
        raise TypeError(
            f"The images of a stream are on disk, and are not made an array of: {len(self):,} images of "
            f"{self.shape[1:]}. Load the data set without `shuffle_window` (--shuffle_window)"
        )

    def __getitem__(self, index):
        """Rows by id: an array of the images of a slice, or of an array of ids. Each is looked for in its file."""
        positions = self._positions[index]

        def read(position):
            file = self._file_of(position)
            records = tf.data.TFRecordDataset(self._files[file])
            return records.skip(position - self._starts[file]).take(1)

        dataset = tf.data.Dataset.from_tensor_slices(positions).flat_map(read).map(self._image)
        images = list(dataset.with_options(deterministic_options()).as_numpy_iterator())
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), self.dtype)

    def take(self, indices):
        """The stream of some of these samples, whose ids are their places in `indices`, which ascend."""
        return ImageStream(*self._arguments, kept=self._positions[indices])

    def windows(self, seed=None):
        samples = self._images(self._records() if seed is None else self._shuffled_records(seed))
        # The next window, sample by sample: once it is put together, the one before it is no longer needed.
        windows = samples.prefetch(self.window_size).batch(self.window_size)

        def by_id(ids, images):
            rows = tf.argsort(ids)
            return Window(tf.gather(ids, rows), tf.cast(rows, tf.int64), images)

        return windows.map(by_id)

    def batches(self, batch_size, first=0):
        return self._images(self._records().skip(first * batch_size)).batch(batch_size)

    def _records(self):
        """Ids and serialized examples, in the order of ids."""
        return self._read(self._starts[:-1], self._starts[1:], open_files=1)

    def _shuffled_records(self, seed):
        """Ids and serialized examples, in an order that the seed decides."""
        of_files, of_place = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        files = tf.random.experimental.stateless_shuffle(tf.range(len(self._files)), of_files, alg="philox")
        starts, stops = tf.gather(self._starts, files), tf.gather(self._starts, files + 1)
        # What the first file has before the place where the pass begins comes last.
        place = starts[:1] + draw(of_place, stops[:1] - starts[:1])
        starts, stops = tf.concat([place, starts[1:], starts[:1]], 0), tf.concat([stops, place], 0)
        return self._read(starts, stops, open_files=max(1, min(OPEN_FILES, len(self._files) // 2)))

    def _read(self, starts, stops, open_files):
        """Ids and serialized examples of runs of positions, none beyond a file."""

        def read(start, stop):
            file = self._file_of(start)
            records = tf.data.TFRecordDataset(self._files[file]).skip(start - self._starts[file]).take(stop - start)
            return records.enumerate(start)

        runs = tf.data.Dataset.from_tensor_slices((starts, stops))
        records = runs.interleave(read, cycle_length=open_files, block_length=1, num_parallel_calls=None)
        if self._ids is None:
            return records
        numbered = records.map(lambda position, record: (self._ids[position], record))
        return numbered.filter(lambda sample, _: sample >= 0)

    def _file_of(self, position):
        return tf.searchsorted(self._starts[:-1], [position], side="right")[0] - 1

    def _images(self, records):
        return records.map(lambda sample, record: (sample, self._image(record)), num_parallel_calls=PARALLEL_CALLS)

    def _image(self, record):
        return tf.ensure_shape(self._decode(record), self.shape[1:])

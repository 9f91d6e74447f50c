"""Readers of the files of an `ImageList`: into memory, to be streamed, or from a cache of decoded images.

Who owns what:
- `ArrayReader` decodes files straight into arrays, so that nothing holds a second copy of the data;
- `SourceReader` leaves the pixels where they are, in the files or in a `DecodedCache`, once all files are known to be
  good.
"""

import concurrent.futures
import contextlib
import os

import numpy as np
import tensorflow as tf

from keras_tkd.data.arrays import allocate_aligned, as_tensor, check_memory, resize_uint8
from keras_tkd.data.decoded_cache import DecodedCache
from keras_tkd.data.image_decoding import FileDecoder
from keras_tkd.data.image_files import BadImageError, measure_image, read_image
from keras_tkd.data.splits import take_rows
from keras_tkd.data.streaming import RandomAccessStream
from keras_tkd.utils.naming import name_some
from keras_tkd.utils.progress import Progress

__all__ = ["ArrayReader", "SourceReader", "make_reader"]

_FILES = 4096  # that wait for the threads together: beside the arrays, of all files there are a few bytes each


def make_reader(name, images, *, size, teacher_size, max_pixels, shuffle_window, decoded_cache, progress):
    """Makes the reader of a whole `ImageList`, a context; for the other arguments see `keras_tkd.data.load`."""
    if shuffle_window is None and decoded_cache is None:
        return ArrayReader(name, images, size, teacher_size, max_pixels, progress)
    cache = None if decoded_cache is None else DecodedCache(decoded_cache, images, size, max_pixels)
    return SourceReader(name, images, size, teacher_size, max_pixels, progress, shuffle_window, cache)


class ArrayReader:
    """Reads image files into arrays. Files are named by their positions in the list.

    Args:
        name: of the data set, for errors.
        images: the `ImageList` of all files.
        size: `(height, width)` of the images, or None for their own.
        teacher_size: that of the images for a teacher, where it sees others; else None.
        max_pixels: how many pixels a file may have.
        progress: whether progress is shown.
    """

    def __init__(self, name, images, size, teacher_size, max_pixels, progress):
        self.name, self.root, self.files = name, images.root, images.files
        self.size, self.teacher_size, self.max_pixels, self.progress = size, teacher_size, max_pixels, progress
        count = len(images.files)
        self._is_measured, self._is_plain = np.zeros(count, bool), np.zeros(count, bool)
        self._shapes = np.zeros((count, 3), np.int32)
        self._bytes, self._checksums = np.zeros(count, np.int64), np.zeros(count, np.uint64)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def read(self, images, parts, thorough):
        """Reads the images of the parts of a list, which is what is left of the whole one.

        Args:
            images: the `ImageList`.
            parts: index arrays into it, which divide it.
            thorough: whether all files that cannot be read are looked for; else some may be missing.

        Returns:
            A list of a `BadImageError` for each file that cannot be read, and, where there is none, a list for each
            size, the student's and the teacher's if it has one, of the images of each part, arrays or streams.
        """
        rows = [images.positions[part] for part in parts]
        positions = np.concatenate(rows)
        bad = self._measure(positions[~self._is_measured[positions]])
        if bad:
            # A file that is refused for its size ends it before anything is decoded.
            if thorough and not any(error.too_large for error in bad):
                bad += self._decode(positions[self._is_measured[positions]], lambda *_: None, channels=3)
            return bad, None
        shape = self._find_common_shape(positions)
        return self._read_pixels(rows, [shape, (*self.teacher_size, shape[-1])] if self.teacher_size else [shape])

    def _read_pixels(self, rows, shapes):
        check_memory(sum(map(len, rows)), shapes, self.name)
        arrays = [[allocate_aligned((len(part), *shape)) for part in rows] for shape in shapes]
        bad = []
        for number, part in enumerate(rows):
            # Decoded once, and resized to each size from the file's own pixels.
            def store(place, image, own=tuple(parts[number] for parts in arrays)):
                for array in own:
                    array[place] = _resize(image, array.shape[1:3])

            bad += self._decode(part, store, shapes[0][-1])
        return bad, arrays

    def _get_path(self, position):
        return os.path.join(self.root, self.files[position])

    def _measure(self, positions):
        """Measures files, and returns the errors of those that are no images."""

        def measure(place):
            position = positions[place]
            measures = measure_image(self._get_path(position), self.max_pixels)
            self._shapes[position], self._is_plain[position] = measures.shape, measures.is_plain
            self._bytes[position], self._checksums[position] = measures.bytes, measures.checksum
            self._is_measured[position] = True

        return self._run(measure, len(positions))

    def _find_common_shape(self, positions):
        """Returns the `(height, width, channels)` that all images will have."""
        channels = int(self._shapes[positions, 2].max())
        if self.size is not None:
            return *self.size, channels
        sizes = self._shapes[positions, :2]
        odd = np.flatnonzero((sizes != sizes[0]).any(1))
        if len(odd):
            first, other = sizes[0], sizes[odd[0]]
            raise ValueError(
                "Images of different sizes need a common one: pass `image_size` (--image_size). Received: "
                f"{self._get_path(positions[0])} with {first[0]}x{first[1]} pixels (height x width), "
                f"{self._get_path(positions[odd[0]])} with {other[0]}x{other[1]}."
            )
        return *map(int, sizes[0]), channels

    def _decode(self, positions, store, channels):
        """Decodes images, calls `store(place, image)` with each, and returns the errors of those that are bad.

        The place is that among the positions.
        """

        def decode(place):
            store(place, read_image(self._get_path(positions[place]), channels, self.max_pixels))

        return self._run(decode, len(positions), f"Reading {len(positions):,} images")

    def _run(self, function, count, title=None):
        """Calls `function(place)` for 0, 1, ... count - 1, in threads; returns the `BadImageError`s in this order."""

        def call(place):
            try:
                function(place)
            except BadImageError as error:
                return error
            return None

        bar = Progress(title, 0, count, shown=self.progress and title is not None)
        errors = []
        # Threads rather than tf.data: a failure knows its file, and pixels go from the decoder to their place.
        pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
        try:
            for start in range(0, count, _FILES):
                for error in pool.map(call, range(start, min(start + _FILES, count))):
                    errors += [error] * (error is not None)
                    bar.add(1)
        finally:
            pool.shutdown(cancel_futures=True)
        return errors


class SourceReader(ArrayReader):
    """Checks image files by decoding each of them once, and leaves the pixels on disk.

    Args:
        name, images, size, teacher_size, max_pixels, progress: as for `ArrayReader`. A cache holds images of one size.
        shuffle_window: images that a stream holds at a time; None makes arrays of what the cache holds.
        cache: a `DecodedCache`, which is written unless it is there; None where the files are decoded in each pass.
    """

    def __init__(self, name, images, size, teacher_size, max_pixels, progress, shuffle_window, cache):
        super().__init__(name, images, size, teacher_size, max_pixels, progress)
        self._window, self._cache = shuffle_window, cache
        self._cached = self._writer = self._shape = None
        self._is_decoded = np.zeros(len(images.files), bool)
        self._context = contextlib.ExitStack()

    def __enter__(self):
        # A cache that is there takes no lock: it may lie where nothing can be written.
        self._cached = self._cache and self._cache.open()
        if self._cache and self._cached is None:
            self._writer = self._context.enter_context(self._cache.build())
            if self._writer is None:
                self._cached = self._cache.open()
        return self

    def __exit__(self, *error):
        return self._context.__exit__(*error)

    def read(self, images, parts, thorough):
        if self._cached is None:
            return super().read(images, parts, thorough)
        if bad := self._read_again(set(self._cached.bad) & set(images.files)):
            return bad, None
        self._checksums, shape = self._cached.checksums, self._cached.pixels.shape[1:]
        return [], self._hold([images.positions[part] for part in parts], [shape], self._cached.pixels)

    def _read_again(self, files):
        """Returns the errors of the files that could not be read when the cache was made."""
        positions = np.array([place for place, file in enumerate(self.files) if file in files], int)
        bad = self._measure(positions)
        bad += self._decode(positions[self._is_measured[positions]], lambda *_: None, channels=3)
        if len(bad) < len(files):
            good = files - {os.path.relpath(error.path, self.root) for error in bad}
            raise ValueError(
                f"`decoded_cache` (--decoded_cache) must hold all images. Received: {self._cache.folder}, which was "
                f"made when {name_some(sorted(good))} could not be read. Remove it, to have it made anew"
            )
        return bad

    def _read_pixels(self, rows, shapes):
        self._check_memory(rows, shapes)
        shape, positions = shapes[0], np.sort(np.concatenate(rows))
        # What is left after bad images may be of another shape, for which what was written is of no use.
        if self._writer and shape != self._shape:
            self._writer.begin((len(self.files), *shape))
            self._is_decoded[:] = False
        self._shape = shape
        pending = positions[~self._is_decoded[positions]]

        def store(place, image):
            if self._writer:
                self._writer.store(int(pending[place]), _resize(image, shape[:2]))

        bad = self._decode(pending, store, shape[-1])
        self._is_decoded[pending] = True
        if bad:
            return bad, None
        pixels = None
        if self._writer:
            left = np.ones(len(self.files), bool)
            left[positions] = False
            self._writer.note(self._checksums, [self.files[position] for position in np.flatnonzero(left)])
            pixels = self._writer.map_pixels()
        return [], self._hold(rows, shapes, pixels)

    def _check_memory(self, rows, shapes):
        counts = list(map(len, rows))
        # A stream holds two windows at a time.
        check_memory(sum(counts) if self._window is None else 2 * min(self._window, max(counts)), shapes, self.name)

    def _hold(self, rows, shapes, pixels):
        """Returns the images of each shape at each of `rows`, out of files, or of all decoded pixels."""
        self._check_memory(rows, shapes)
        if self._window is None:
            return [[take_rows(pixels, part) for part in rows]]
        if pixels is None:
            decode = FileDecoder(self.root, self.files, self._is_plain, self._bytes, shapes[0][-1], self.max_pixels)
        else:
            with tf.device("CPU:0"):
                mapped = as_tensor(pixels)

            def decode(position):
                return tf.gather(mapped, position)

        streams = [RandomAccessStream(decode, self._checksums, shape, self._window) for shape in shapes]
        return [[stream.take(part) for part in rows] for stream in streams]


def _resize(image, size):
    return image if image.shape[:2] == size else resize_uint8(image, size).numpy()

"""Observations of a run's models: what they say of the test images, as arrays that a report is drawn from."""

import dataclasses
import io
import pathlib

import numpy as np

from keras_tkd.utils.checkpoint_files import check_array_sizes
from keras_tkd.utils.files import atomic_write

__all__ = ["BASELINE_ROLE", "Observations", "STUDENT_ROLE", "TEACHER_ROLE", "read_observations", "write_observations"]

TEACHER_ROLE, BASELINE_ROLE, STUDENT_ROLE = "teacher", "baseline", "student"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observations:
    """Outputs of the models of a run for the test images, and some of the images.

    Attributes:
        labels: `(samples,)` class ids of all test images.
        classes: dict from a role to the classes that its model names, `(samples,)`.
        confidences: dict from a role to the probability that it gives to them, `(samples,)`, 0..1.
        embedded: `(images,)` ids of the test images that there are embeddings of.
        embeddings: dict from a role to the embeddings of these, `(images, width)`.
        pictured: `(images,)` ids of the test images that there are pictures of.
        pictures: uint8 `(images, height, width, channels)`; empty where images have neither one channel nor three.
        triplets: `(triplets, 2)` ids of anchor and negative; none of a method without triplets.
        distances: dict from `"before"` and `"after"` to `(triplets, 2)`, the distance of the teacher's output for the
            anchor to the student's output for the same image, and to that for the negative.
    """

    labels: np.ndarray
    classes: dict[str, np.ndarray]
    confidences: dict[str, np.ndarray]
    embedded: np.ndarray
    embeddings: dict[str, np.ndarray]
    pictured: np.ndarray
    pictures: np.ndarray
    triplets: np.ndarray
    distances: dict[str, np.ndarray]

    def is_right(self, role):
        """Returns for each test image whether a role's model names its class, bool `(samples,)`."""
        return self.classes[role] == self.labels

    def find_picture(self, image):
        """Returns the picture of a test image by its id; None where there is none."""
        places = np.flatnonzero(self.pictured == image)
        return self.pictures[places[0]] if len(places) and len(self.pictures) else None


_PER_ROLE = ("classes", "confidences", "embeddings", "distances")


def write_observations(path, observations):
    """Writes `Observations` as a NumPy archive."""
    arrays = {}
    for name, value in vars(observations).items():
        arrays |= {f"{name}.{role}": each for role, each in value.items()} if name in _PER_ROLE else {name: value}
    with atomic_write(path, sum(array.nbytes for array in arrays.values())) as unfinished:
        np.savez(unfinished, **arrays)


def read_observations(path):
    """Returns the `Observations` of a file; None where there is no file.

    Raises:
        ValueError: the file holds something else; the message names it.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return None
    content = path.read_bytes()
    fields = {name: {} for name in _PER_ROLE}
    try:
        check_array_sizes(io.BytesIO(content))
        with np.load(io.BytesIO(content), allow_pickle=False) as entries:
            for entry in entries.files:
                name, _, role = entry.partition(".")
                if role:
                    fields[name][role] = entries[entry]
                else:
                    fields[name] = entries[entry]
        observations = Observations(**fields)
        _check(observations)
    except Exception as error:  # of zipfile, its decompressors, or NumPy, which takes a header for Python
        raise ValueError(
            f"{path} is damaged: it holds no observations ({error}). Remove it, and the report goes without; or remove "
            "results.json beside it too, and the same command measures the models again"
        ) from error
    return observations


def _check(observations):
    """Raises `ValueError` where arrays that are of the same images have not as many of them."""
    samples, roles = observations.labels.shape, observations.classes.keys()
    if min(each.min(initial=0) for each in (observations.labels, *observations.classes.values())) < 0:
        raise ValueError("classes are numbers from 0 on")
    for of_role in (observations.classes, observations.confidences):
        wrong = [role for role, array in of_role.items() if array.shape != samples]
        if wrong:
            raise ValueError(f"the test images of {', '.join(wrong)} are not as many as their labels")
    if STUDENT_ROLE not in roles or roles != observations.confidences.keys():
        raise ValueError("the student's classes are missing, or confidences are not of the models that name classes")
    for name, dimensions in (("embedded", 1), ("pictured", 1), ("triplets", 2)):
        ids = getattr(observations, name)
        if ids.ndim != dimensions or (ids.size and not 0 <= ids.min() <= ids.max() < len(observations.labels)):
            raise ValueError(f"`{name}` holds no ids of test images")
    if any(len(array) != len(observations.embedded) for array in observations.embeddings.values()):
        raise ValueError("embeddings are not as many as their images")
    times = ("before", "after") if len(observations.triplets) else ()
    if any(observations.distances[time].shape != observations.triplets.shape for time in times):
        raise ValueError("distances are not as many as their triplets")
    if len(observations.pictures) not in (0, len(observations.pictured)):
        raise ValueError("pictures are not as many as their ids")

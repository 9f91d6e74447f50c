import gc
import os
import signal

# A shell lets its background jobs ignore Ctrl-C, and their processes inherit that; many a test sends it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the scripts do: TensorFlow turns oneDNN on by itself on some processors only, and machines shall agree.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# XLA's effort for fast code is lost on tests, which run what they compile a few times.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# One process of tests for each core: threads of their own would only get in each other's way.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402

# Imports and traced graphs make objects by the hundred thousand, nearly all of which stay: Python would look through
# them again and again, which takes a tenth of the time.
gc.disable()


def pytest_collection_finish():
    """Begins to collect garbage, seldom; the modules that were imported stay, and are not looked through."""
    gc.freeze()
    gc.set_threshold(20_000, 10, 4)
    gc.enable()


@pytest.fixture(autouse=True, scope="session")
def quick_graphs():
    """What makes a graph run fast costs more than it saves where each runs a few times; scripts run with all of it."""
    import tensorflow as tf

    from keras_tkd.runs import optimization

    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    with pytest.MonkeyPatch.context() as patch:
        # A step of several is traced twice, once in a loop: test_stages.py shows that it is the same step.
        patch.setattr(optimization, "STEPS_PER_EXECUTION", 1)
        yield


STORED = {"train": (40, 1, 55, 24), "test": (18,)}  # images in each file


@pytest.fixture(scope="session")
def stored(tmp_path_factory):
    """A folder with the prepared data set `shades`: 8x8x3 noise in several files, the brighter the higher its class."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("data") / "shades" / "1.0.0"
    folder.mkdir(parents=True)
    names = ["dark", "grey", "light"]
    features = {"image": tfds.features.Image(shape=(8, 8, 3)), "label": tfds.features.ClassLabel(names=names)}
    features = tfds.features.FeaturesDict(features)
    rng = np.random.default_rng(0)
    splits = []
    for split, lengths in STORED.items():
        for number, length in enumerate(lengths):
            name = f"shades-{split}.tfrecord-{number:05}-of-{len(lengths):05}"
            with tf.io.TFRecordWriter(str(folder / name)) as file:
                for label in rng.integers(0, 3, length):
                    image = rng.integers(10 + 80 * label, 70 + 80 * label, (8, 8, 3), dtype="uint8")
                    file.write(features.serialize_example({"image": image, "label": label}))
        splits.append(tfds.core.SplitInfo(name=split, shard_lengths=list(lengths), num_bytes=0))
    keys = ("image", "label")
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder), features=features, split_infos=splits, supervised_keys=keys, check_data=False
    )
    return folder.parent.parent

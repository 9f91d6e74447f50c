"""The names that a setting may take, and a default, stated once: `config/` offers them, other rooms give each meaning.

No Keras here: `--help` shows them, and is not to wait for TensorFlow.
"""

__all__ = [
    "APPLICATIONS",
    "AUGMENTATIONS",
    "AVERAGES",
    "BUILT_IN_DATASETS",
    "CACHE_DTYPES",
    "DISTRIBUTIONS",
    "EXPORT_FORMATS",
    "GATHERS",
    "INT8_INTERFACES",
    "MAX_PIXELS",
    "MINERS",
    "NEGATIVE_CLASSES",
    "OPTIMIZERS",
    "PRECISIONS",
    "PREPROCESSING",
    "PREPROCESSING_PLACES",
    "TASKS",
    "WEIGHTINGS",
    "check_complete",
]

# What stands before the name of an architecture of `keras.applications`.
APPLICATIONS = "keras_applications/"
AUGMENTATIONS = (
    "none",
    "crop",
    "crop_flip",
    "horizontal_flip",
    "resized_crop",
    "color_jitter",
    "rand_augment",
    "cutout",
)
AVERAGES = ("losses", "probabilities", "logits")
# Data sets that need no files: small, and in memory.
BUILT_IN_DATASETS = ("digits",)
CACHE_DTYPES = ("float16", "float32")
DISTRIBUTIONS = ("none", "mirrored", "multi_worker")
EXPORT_FORMATS = ("saved_model", "litert_float32", "litert_float16", "litert_dynamic", "litert_int8", "onnx")
GATHERS = ("global", "local")
INT8_INTERFACES = ("float32", "int8")
MAX_PIXELS = 2**26  # of one image: 8192 x 8192, 192 MiB in memory
MINERS = ("random", "semi_hard", "hard", "all")
NEGATIVE_CLASSES = ("labels", "teacher")
OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
PREPROCESSING = ("none", "unit", "tf", "torch", "imagenet", "caffe")
PREPROCESSING_PLACES = ("inside", "outside")
TASKS = ("single_label", "multi_label")
WEIGHTINGS = ("entropy", "confidence")


def check_complete(names, functions):
    """Returns `functions`, after a check that there is one for each of `names`, in their order.

    Called where a table of functions is defined, so that a name without a function is an error at import.

    Args:
        names: tuple of names, one of this module's.
        functions: dict from a name to its function, or to None.

    Raises:
        ValueError: names that differ.
    """
    if tuple(functions) != tuple(names):
        rule = f"A table must have one entry for each of {', '.join(names)}"
        raise ValueError(f"{rule}. Received: {', '.join(functions)}")
    return functions

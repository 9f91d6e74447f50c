"""Settings of an export: a trained model as files for devices, and their measurement."""

import dataclasses

from keras_tkd.config.fields import ReadWhen, check, option
from keras_tkd.config.teachers import PretrainedTeachersConfig
from keras_tkd.utils.choices import EXPORT_FORMATS, INT8_INTERFACES, PREPROCESSING_PLACES

__all__ = ["ExportConfig"]

_CALIBRATED = ReadWhen(lambda config: "litert_int8" in config.formats, "`{name}` goes with the format litert_int8")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig(PretrainedTeachersConfig):
    """One export: of a run's student, on the run's own data set, or of any saved model."""

    source: str | None = option(
        None,
        "Folder of a finished run, whose data set and teacher are the files' measure, or a .keras file, whose data set "
        "and teacher the other flags name.",
        decides="measurement",
    )
    output: str | None = option(None, "Folder to write to.", decides="nothing")
    formats: tuple[str, ...] = option(
        tuple(name for name in EXPORT_FORMATS if name != "onnx"),
        f"What to write, separated by commas: {', '.join(EXPORT_FORMATS)}.",
        EXPORT_FORMATS,
        decides="measurement",
    )
    preprocessing: str = option(
        "inside",
        "Whether the files take pixels 0..255, or the model's layers that scale them are left to who runs the files.",
        PREPROCESSING_PLACES,
        decides="measurement",
    )
    int8_interface: str = option(
        "float32",
        "What litert_int8 takes and returns: floats, or int8 numbers by the scales in export.json.",
        INT8_INTERFACES,
        decides="measurement",
        read_when=_CALIBRATED,
    )
    calibration_images: int | None = option(
        None,
        "Training images from which litert_int8 learns the ranges of activations; 200 if not given, or all where there "
        "are fewer.",
        decides="measurement",
        read_when=_CALIBRATED,
    )
    calibration_seed: int = option(0, "Seed of their choice.", decides="measurement", read_when=_CALIBRATED)
    max_drop: float | None = option(
        None,
        "Largest loss of test accuracy against the model in Keras, 0..1, that any of the files may have; no limit if "
        "not given. Beyond it the files are there, and the command fails.",
        decides="measurement",
    )
    existing: str = option(
        "refuse",
        "What to do if --output holds an export: refuse, or overwrite it once the new one is whole.",
        ("refuse", "overwrite"),
        decides="nothing",
    )

    @property
    def has_teacher(self):
        """True if a teacher is named; that of a run's folder the run itself knows."""
        return bool(self.teacher_path)

    @property
    def reads_files(self):
        """True also for the folder of a run, which alone knows its data set: where it is may be said."""
        return super().reads_files or not str(self.source).endswith(".keras")

    def _check_rules(self):
        super()._check_rules()
        check(self.source, "`source` is needed, a run's folder or a .keras file", self, "source")
        check(self.output, "`output` is needed, a folder to write to", self, "output")
        check(self.formats, "`formats` must be one at least", self, "formats")
        check(len(set(self.formats)) == len(self.formats), "`formats` must name different ones", self, "formats")
        enough = self.calibration_images is None or self.calibration_images >= 1
        check(enough, "`calibration_images` must be >= 1", self, "calibration_images")
        seed = 0 <= self.calibration_seed < 2**30
        check(seed, "`calibration_seed` must be in [0, 2^30)", self, "calibration_seed")
        if self.max_drop is not None:
            check(0 <= self.max_drop <= 1, "`max_drop` must be a share of the images, 0..1", self, "max_drop")

"""What a run says of the images that it read, and of what it did not read."""

import json

import numpy as np
import tensorflow as tf

from keras_tkd.config import DistillConfig, EvaluateConfig
from keras_tkd.reports.schema import read_results
from keras_tkd.runs import commands


def test_a_run_says_which_images_it_read(tmp_path, capsys):
    pets = tmp_path / "pets"
    for value, name in enumerate(("cat", "dog")):
        (pets / name / "old").mkdir(parents=True)
        for n in range(10):
            image = np.full((8, 8, 1), 200 * value, np.uint8)
            (pets / name / f"{n}.png").write_bytes(tf.io.encode_png(image).numpy())
    (pets / "cat" / "Thumbs.db").write_bytes(b"")
    (pets / "cat" / "bad.jpg").write_bytes(b"no image")
    config = DistillConfig(
        dataset=str(pets),
        method="baseline",
        epochs=1,
        batch_size=8,
        skip_bad_images=True,
        validation_fraction=0.25,
        student_model="digits_student",
    )
    commands.distill(config, tmp_path / "run")
    # A fifth of 10 images of each class for testing, and a quarter of the other 8 for validation.
    counts = {part: {"cat": count, "dog": count} for part, count in (("train", 6), ("validation", 2), ("test", 2))}
    skipped = {".db files": 1, "sub-folders of classes, which --nested reads": 2}
    bad = ["cat/bad.jpg cannot be decoded"]
    assert json.loads((tmp_path / "run" / "results.json").read_text())["images"] == counts | {
        "skipped": skipped,
        "bad": bad,
    }
    images = read_results(tmp_path / "run" / "results.json").images
    assert (images.train, images.test, images.open_set) == (counts["train"], counts["test"], None)
    said = capsys.readouterr().out.splitlines()
    start = said.index(f"{pets}: 2 classes; images: 12 training, 4 validation, 4 test")
    assert [line.split() for line in said[start + 1 : start + 5] if "-" not in line] == [
        ["class", "training", "validation", "test"],
        ["cat", "6", "2", "2"],
        ["dog", "6", "2", "2"],
    ]
    assert said[start + 5 : start + 8] == [
        "Not read: 1 .db files: cat/Thumbs.db",
        "Not read: 2 sub-folders of classes, which --nested reads: cat/old, dog/old",
        "Left out, 1 that cannot be read: cat/bad.jpg cannot be decoded",
    ]
    # Of `evaluate`, the standard output is JSON.
    model = str(tmp_path / "run" / "student.keras")
    commands.evaluate(EvaluateConfig(dataset=str(pets), model_path=model, skip_bad_images=True))
    out, err = capsys.readouterr()
    assert "Not read: 1 .db files" in err and "Left out, 1" in err and "Not read" not in out


def test_digits_are_counted(tmp_path, capsys):
    config = DistillConfig(method="baseline", epochs=1, batch_size=512, classes=("3", "1"), train_fraction=0.1)
    images = commands.distill(config, tmp_path)["images"]
    assert images.keys() == {"train", "test"} and [*images["train"]] == ["3", "1"]
    # 183 threes and 182 ones: a fifth for testing, 36.6 and 36.4; a tenth of the others, 14.6 each.
    assert images == {"train": {"3": 15, "1": 15}, "test": {"3": 37, "1": 36}}
    assert "digits: 2 classes; images: 30 training, 73 test" in capsys.readouterr().out

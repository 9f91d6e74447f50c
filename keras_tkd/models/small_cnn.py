"""Small convolutional networks: those of "Triplet Loss for Knowledge Distillation", and a pair for digits.

They take pixels 0..255 (the first layer scales by 1 / 255) and return logits. Distillation reads these layers:
- `stage1..N`: the output of the N-th max-pool: equal heights and widths in a teacher and its student;
- `features`: the output of the last convolution, before its BatchNorm, ReLU and pool, in whatever order;
- `embedding`: the input of the last dense layer, before dropout;
- `logits`: the output, float32 under any policy.

Convolutions are 3x3 with "same" padding. Initializers are Keras's defaults (`glorot_uniform`, zero biases),
where the authors' code has PyTorch's (uniform within 1 / sqrt(fan_in), for kernels and biases). BatchNorm has
PyTorch's default momentum and epsilon, not Keras's.

Reference: Oki, Abe, Miyao, Kurita, "Triplet Loss for Knowledge Distillation", IJCNN 2020, arXiv 2004.08116.
"""

import keras
from keras import layers

__all__ = ["digits_student", "digits_teacher", "tkd_student", "tkd_student_2022", "tkd_teacher"]


def tkd_teacher(image_shape, num_classes):
    """Builds the paper's teacher: 1,256,106 parameters at 32x32x3 and 10 classes."""
    images, x = _scaled_pixels(image_shape)
    x = _conv_relu_norm(x, 32, "conv1")
    x = layers.MaxPooling2D(name="stage1")(x)
    x = _conv_relu_norm(x, 32, "conv2")
    x = layers.MaxPooling2D(name="stage2")(x)
    x = _conv_relu_norm(x, 64, "conv3")
    x = _conv_relu_norm(x, 64, "conv4")
    x = _conv_relu_norm(x, 128, "features")
    x = layers.MaxPooling2D(name="stage3")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(512, activation="relu", name="dense")(x)
    x = layers.Dropout(0.5, name="dense_dropout")(x)
    x = layers.Dense(128, activation="relu", name="embedding")(x)
    x = layers.Dropout(0.5, name="embedding_dropout")(x)
    return keras.Model(images, _logits(x, num_classes), name="tkd_teacher")


def tkd_student(image_shape, num_classes):
    """Builds the paper's student, without BatchNorm: 161,130 parameters at 32x32x3 and 10 classes."""
    images, x = _scaled_pixels(image_shape)
    x = _conv_relu(x, 32, "conv1")
    x = layers.MaxPooling2D(name="stage1")(x)
    x = _conv_relu(x, 32, "conv2")
    x = layers.MaxPooling2D(name="stage2")(x)
    x = _conv_relu(x, 64, "features")
    x = layers.MaxPooling2D(name="stage3")(x)
    x = layers.Flatten(name="flatten")(x)
    # As wide as the teacher's: losses on embeddings need no projector between the two.
    x = layers.Dense(128, activation="relu", name="embedding")(x)
    return keras.Model(images, _logits(x, num_classes), name="tkd_student")


def tkd_student_2022(image_shape, num_classes):
    """Builds the student of the authors' 2022 code: 156,298 parameters at 32x32x3 and 10 classes."""
    images, x = _scaled_pixels(image_shape)
    x = _conv_norm_relu(x, 16, "conv1")
    x = layers.MaxPooling2D(name="stage1")(x)
    x = _conv_norm_relu(x, 32, "conv2")
    x = layers.MaxPooling2D(name="stage2")(x)
    x = _conv_norm_relu(x, 64, "features")
    x = layers.MaxPooling2D(name="stage3")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, activation="relu", name="embedding")(x)
    return keras.Model(images, _logits(x, num_classes), name="tkd_student_2022")


def digits_teacher(image_shape, num_classes):
    """Builds a teacher for scikit-learn's digits: 72,970 parameters at 8x8x1 and 10 classes."""
    images, x = _scaled_pixels(image_shape)
    x = _conv_relu(x, 32, "conv1")
    x = _conv_relu(x, 64, "conv2")
    x = layers.MaxPooling2D(name="stage1")(x)
    x = _conv_norm_relu(x, 64, "features")
    x = layers.MaxPooling2D(name="stage2")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(64, activation="relu", name="embedding")(x)
    x = layers.Dropout(0.5, name="embedding_dropout")(x)
    return keras.Model(images, _logits(x, num_classes), name="digits_teacher")


def digits_student(image_shape, num_classes):
    """Builds a student for scikit-learn's digits: 666 parameters at 8x8x1 and 10 classes.

    Small enough to gain from a teacher, it has no dense layer but the last: `embedding` is the flattened `stage2`.
    """
    images, x = _scaled_pixels(image_shape)
    x = _conv_relu(x, 4, "conv1")
    x = layers.MaxPooling2D(name="stage1")(x)
    x = _conv_relu(x, 8, "features")
    x = layers.MaxPooling2D(name="stage2")(x)
    x = layers.Flatten(name="embedding")(x)
    return keras.Model(images, _logits(x, num_classes), name="digits_student")


def _scaled_pixels(image_shape):
    images = keras.Input(image_shape, name="image")
    # float32 under any policy: bfloat16 would round 1 / 255 itself, and darken every image by 0.4 %.
    return images, layers.Rescaling(1 / 255, dtype="float32", name="rescaling")(images)


def _conv(x, filters, name):
    return layers.Conv2D(filters, 3, padding="same", name=name)(x)


def _norm(x, name):
    # PyTorch's momentum and epsilon, as the authors' code has them.
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)


def _relu(x, name):
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv_relu(x, filters, name):
    return _relu(_conv(x, filters, name), name)


def _conv_relu_norm(x, filters, name):
    return _norm(_conv_relu(x, filters, name), name)


def _conv_norm_relu(x, filters, name):
    return _relu(_norm(_conv(x, filters, name), name), name)


def _logits(x, num_classes):
    # float32 under any policy: losses compare small differences of logits, and bfloat16 has 8 significant bits.
    return layers.Dense(num_classes, dtype="float32", name="logits")(x)

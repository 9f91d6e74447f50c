"""ResNets for 32x32 images, as the benchmark tables of distillation use them.

`resnet20` and the others of its form have widths 16-16-32-64 (He et al. 2016); `resnet8x4` and `resnet32x4` have
32-64-128-256 (Tian et al. 2020: the stem is doubled, the stages are widened by four). Where a block changes
the shape, its shortcut is a 1x1 convolution with BatchNorm (option B), as in those tables; He et al. pad with
zeros (option A).

They take pixels 0..255 (the first layer scales by 1 / 255) and return logits. Distillation reads these layers:
- `stage1..3`: the output of each stage, after its last ReLU;
- `features`: the last block's sum, before that ReLU;
- `embedding`: the average of `stage3` over all positions;
- `logits`: the output, float32 under any policy.

Deviations from the PyTorch code behind the tables: Keras's "same" padding puts the one row and column of
zeros that a stride-2 convolution needs at the bottom right (PyTorch: top left); `he_normal` scales by fan-in
and truncates (there: fan-out); the dense layer's initializer is Keras's default.

References:
- He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv 1512.03385.
- Tian et al., "Contrastive Representation Distillation", ICLR 2020, arXiv 1910.10699.
"""

from functools import partial

import keras
from keras import layers

__all__ = ["RESNETS", "resnet"]


def resnet(image_shape, num_classes, depth, widths=(16, 16, 32, 64), name=None):
    """Builds a CIFAR ResNet of basic blocks: 3 stages of (depth - 2) / 6 blocks.

    `resnet((32, 32, 3), 100, depth=20)` has 278,324 trainable parameters.

    Args:
        image_shape: (height, width, channels).
        num_classes: number of logits.
        depth: number of convolutions on the longest path, plus the dense layer: 8, 14, 20, ...
        widths: channels of the stem and of the three stages.
        name: the model's name; None is `resnet<depth>`.

    Raises:
        ValueError: if `depth` is not 6n + 2 with n >= 1.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"`depth` must be 6n + 2 with n >= 1: 8, 14, 20, ... Received: depth={depth}")
    stem, *stages = widths
    images = keras.Input(image_shape, name="image")
    # float32 under any policy: bfloat16 would round 1 / 255 itself, and darken every image by 0.4 %.
    x = layers.Rescaling(1 / 255, dtype="float32", name="rescaling")(images)
    x = _conv_norm(x, stem, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    blocks = (depth - 2) // 6
    for stage, width in enumerate(stages, start=1):
        for block in range(1, blocks + 1):
            last = block == blocks
            # The outputs of a stage carry the names that distillation reads; all others, names of their own.
            prefix = f"stage{stage}_block{block}"
            x = _block_sum(
                x,
                width,
                strides=2 if stage > 1 and block == 1 else 1,
                prefix=prefix,
                name="features" if last and stage == len(stages) else f"{prefix}_sum",
            )
            x = layers.ReLU(name=f"stage{stage}" if last else f"{prefix}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="embedding")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(images, logits, name=name or f"resnet{depth}")


def _block_sum(x, width, strides, prefix, name):
    """Returns a basic block's sum before its last ReLU, which the caller adds, so that `features` can be read there."""
    shortcut = x
    if strides != 1 or x.shape[-1] != width:
        shortcut = _conv_norm(x, width, f"{prefix}_shortcut", size=1, strides=strides)
    x = _conv_norm(x, width, f"{prefix}_conv1", strides=strides)
    x = layers.ReLU(name=f"{prefix}_conv1_relu")(x)
    x = _conv_norm(x, width, f"{prefix}_conv2")
    return layers.Add(name=name)([x, shortcut])


def _conv_norm(x, filters, name, size=3, strides=1):
    x = layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding="same",
        # BatchNorm's own offset comes right after.
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    # Momentum and epsilon of PyTorch, with which the tables were made; Keras's are 0.99 and 1e-3.
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)


_resnet_x4 = partial(resnet, widths=(32, 64, 128, 256))

RESNETS = {
    **{f"resnet{depth}": partial(resnet, depth=depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    "resnet8x4": partial(_resnet_x4, depth=8, name="resnet8x4"),
    "resnet32x4": partial(_resnet_x4, depth=32, name="resnet32x4"),
}

"""Trains tkd in PyTorch, as its authors and users write it: the other side of `torch_tkd_*` in `keys.py`.

The paper's networks on random images of CIFAR-10's size, batches of 128, the teacher live, its output the anchor. With
`--negatives=drawn` the data set draws an image of another class beside each image, as the paper's authors do; with
`in_batch` one is picked among the images of the batch. Each line on standard input is one epoch, answered by "done".
"""

import argparse
import sys

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

BATCH = 128
WORKERS = 2


def to_tensor(image):
    """Converts pixels as torchvision's ToTensor does: from 0..255, channels last, to 0..1, channels first."""
    return torch.from_numpy(image.transpose(2, 0, 1)).contiguous().float().div(255)


class Images(Dataset):
    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return to_tensor(self.images[index]), self.labels[index]


class ImagesWithNegatives(Images):
    def __init__(self, images, labels):
        super().__init__(images, labels)
        self.others = {label: np.flatnonzero(labels != label) for label in set(labels.tolist())}

    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        negative, _ = super().__getitem__(np.random.choice(self.others[int(label)]))
        return image, negative, label


def make_convolution(inputs, outputs, norm):
    layers = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
    return [*layers, nn.BatchNorm2d(outputs)] if norm else layers


def make_teacher(classes=10):
    pool = nn.MaxPool2d(2)
    return nn.Sequential(
        *make_convolution(3, 32, True),
        pool,
        *make_convolution(32, 32, True),
        pool,
        *make_convolution(32, 64, True),
        *make_convolution(64, 64, True),
        *make_convolution(64, 128, True),
        pool,
        nn.Flatten(),
        *(nn.Linear(2048, 512), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(512, 128), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(128, classes),
    )


def make_student(classes=10):
    pool = nn.MaxPool2d(2)
    return nn.Sequential(
        *make_convolution(3, 32, False),
        pool,
        *make_convolution(32, 32, False),
        pool,
        *make_convolution(32, 64, False),
        pool,
        nn.Flatten(),
        *(nn.Linear(1024, 128), nn.ReLU()),
        nn.Linear(128, classes),
    )


def pick_negatives(labels):
    """Picks for each label the position of a random other label in the batch."""
    return torch.multinomial((labels[:, None] != labels[None]).float(), 1)[:, 0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--negatives", choices=("drawn", "in_batch"), required=True)
    parser.add_argument("--images", type=int, required=True)
    arguments = parser.parse_args()

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (arguments.images, 32, 32, 3), dtype="uint8")
    labels = rng.integers(0, 10, arguments.images)
    kind = ImagesWithNegatives if arguments.negatives == "drawn" else Images
    loader = DataLoader(kind(images, labels), batch_size=BATCH, shuffle=True, num_workers=WORKERS)
    teacher, student = make_teacher().eval(), make_student().train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.001, momentum=0.9)
    crossentropy, triplet = nn.CrossEntropyLoss(), nn.TripletMarginLoss(margin=5.0)

    for _ in sys.stdin:
        correct = 0
        for image, *negative, label in loader:
            optimizer.zero_grad()
            with torch.no_grad():
                anchor = teacher(image)
            positive = student(image)
            pushed = student(negative[0]) if negative else positive[pick_negatives(label)]
            loss = crossentropy(positive, label) + 2.0 * triplet(anchor, positive, pushed)
            loss.backward()
            optimizer.step()
            correct += int((positive.argmax(1) == label).sum())
        print("done", flush=True)


if __name__ == "__main__":
    main()

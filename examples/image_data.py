"""Small labelled image sets held in memory: scikit-learn's digits, IDX files (MNIST and its kin), image folders."""

import gzip
import math
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
TEST_SHARE = 0.2  # of a set that comes without a split
IDX_UBYTE = b"\x00\x00\x08"  # how an IDX file of unsigned bytes begins; the number of dimensions follows


class DataError(Exception):
    """A data path that is missing, empty or broken. The text is one sentence for the user."""


@dataclass(frozen=True)
class Split:
    images: torch.Tensor  # uint8 (N, 1 or 3, size, size)
    labels: torch.Tensor  # int64 (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, count: int) -> "Split":
        return Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class ImageData:
    train: Split
    test: Split
    classes: tuple[str, ...]

    def limited(self, count: int) -> "ImageData":
        """The same data with at most ``count`` images in each split."""
        return ImageData(self.train.head(count), self.test.head(count), self.classes)


def load(path: str | None, size: int) -> ImageData:
    """Loads ``path``, or the digits if it is None, as images of ``size`` x ``size`` pixels.

    ``path`` is a folder that holds IDX files (``train-images-idx3-ubyte``, ``t10k-...``, with or without ``.gz``, also
    in a sub-folder ``raw``), or one sub-folder of images per class, or ``train`` and ``test`` (or ``val``) with one
    sub-folder per class in each. What has no split gets a fixed one.

    Raises:
        DataError: the path is missing, holds nothing of the kind, or a file in it is broken.
    """
    if path is None:
        return _digits(size)
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is not a folder." if root.exists() else f"There is no folder {root}.")
    for folder in (root, root / "raw"):
        if _idx_file(folder, "train", "images") is not None:
            return _idx_folder(folder, size)
    return _image_folder(root, size)


def _split(images: torch.Tensor, labels: torch.Tensor, classes: tuple[str, ...]) -> ImageData:
    """Puts TEST_SHARE of each class into the test split, the same images every time."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    in_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(len(classes)):
        members = order[labels[order] == label]
        in_test[members[: math.ceil(len(members) * TEST_SHARE)]] = True
    train_rows, test_rows = order[~in_test[order]], order[in_test[order]]
    return ImageData(
        Split(images[train_rows], labels[train_rows]), Split(images[test_rows], labels[test_rows]), classes
    )


def _resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (N, C, H, W) to uint8 (N, C, size, size)."""
    if images.shape[-2:] == (size, size):
        return images
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", align_corners=False, antialias=True)
    return resized.round().clamp(0, 255).byte()


def _digits(size: int) -> ImageData:
    """1,797 scans of handwritten digits, 8x8 pixels of 17 grey levels (UCI, in scikit-learn's wheel)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images * (255 / 16)).round().byte().unsqueeze(1)
    labels = torch.from_numpy(digits.target).long()
    return _split(_resize(images, size), labels, tuple(map(str, digits.target_names)))


def _idx_file(folder: Path, split: str, kind: str) -> Path | None:
    for infix in ("-", "."):
        for suffix in ("", ".gz"):
            path = folder / f"{split}-{kind}{infix}idx{3 if kind == 'images' else 1}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def read_idx(path: Path) -> torch.Tensor:
    """Reads one IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist: big-endian header, row-major data)."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    if raw[:3] != IDX_UBYTE or len(raw) < 4 + 4 * raw[3]:
        raise DataError(f"{path} is not an IDX file of unsigned bytes.")
    shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4).tolist()
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if data.size != math.prod(shape):
        raise DataError(f"{path} is cut short or damaged: its header says {shape}, it holds {data.size} values.")
    return torch.from_numpy(data.reshape(shape).copy())


def _idx_folder(folder: Path, size: int) -> ImageData:
    parts = []
    for split in ("train", "t10k"):
        found = {kind: _idx_file(folder, split, kind) for kind in ("images", "labels")}
        for kind, path in found.items():
            if path is None:
                raise DataError(f"{folder} has no file {split}-{kind}-idx{3 if kind == 'images' else 1}-ubyte[.gz].")
        images, labels = read_idx(found["images"]), read_idx(found["labels"]).long()
        if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels) or len(labels) == 0:
            raise DataError(f"{found['images']} and {found['labels']} do not hold as many images as labels.")
        # In slices: 60,000 images as float32 at the new size would be several times the set itself.
        resized = torch.cat([_resize(chunk.unsqueeze(1), size) for chunk in images.split(4096)])
        parts.append(Split(resized, labels))
    count = int(max(part.labels.max() for part in parts)) + 1
    return ImageData(*parts, tuple(map(str, range(count))))


def _image_folder(root: Path, size: int) -> ImageData:
    train = root / "train"
    test = next((folder for folder in (root / "test", root / "val") if folder.is_dir()), None)
    if train.is_dir() and test is not None:
        classes = _class_names(train)
        return ImageData(_read_images(train, classes, size), _read_images(test, classes, size), classes)
    classes = _class_names(root)
    everything = _read_images(root, classes, size)
    return _split(everything.images, everything.labels, classes)


def _class_names(root: Path) -> tuple[str, ...]:
    names = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if len(names) < 2:
        raise DataError(f"{root} holds neither IDX files nor one sub-folder of images for each of two or more classes.")
    return names


def _read_images(root: Path, classes: tuple[str, ...], size: int) -> Split:
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(path for path in (root / name).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not found:
            raise DataError(f"{root / name} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
        paths += found
        labels += [label] * len(found)
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda path: _read_image(path, size), paths))
    return Split(torch.stack(images), torch.tensor(labels))


def _read_image(path: Path, size: int) -> torch.Tensor:
    """The middle square of an image as uint8 (3, size, size)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow's readers raise
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).contiguous()

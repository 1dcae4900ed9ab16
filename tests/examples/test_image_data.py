"""examples/image_data.py: every kind of input it takes, and one sentence for every kind it cannot."""

import gzip
import struct

import numpy as np
import pytest
import torch
from image_data import DataError, load, read_idx
from PIL import Image


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def write_idx_set(folder, suffix="", count=12):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28))
    for split, rows in (("train", slice(0, 8)), ("t10k", slice(8, None))):
        write_idx(folder / f"{split}-images-idx3-ubyte{suffix}", pixels[rows])
        write_idx(folder / f"{split}-labels-idx1-ubyte{suffix}", np.arange(count)[rows] % 4)
    return pixels


def write_images(folder, count=5, color=None):
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (20, 12), color or (index, 0, 0)).save(folder / f"{index}.png")


def test_digits_have_a_fixed_stratified_split():
    data, again = load(None, 32), load(None, 32)
    assert len(data.train) + len(data.test) == 1797
    assert data.train.images.shape[1:] == (1, 32, 32)
    assert data.train.images.dtype == torch.uint8
    assert int(data.train.images.max()) == 255
    counts = torch.bincount(data.test.labels, minlength=10)
    assert int(counts.min()) >= 34 and int(counts.max()) <= 37
    assert torch.equal(data.test.images, again.test.images)
    # No scan is in both splits.
    both = torch.cat([data.train.images, data.test.images]).flatten(1)
    assert len(both.unique(dim=0)) == len(both)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("sub_folder", [".", "raw"])
def test_idx_files(tmp_path, suffix, sub_folder):
    pixels = write_idx_set(tmp_path / sub_folder, suffix)
    data = load(str(tmp_path), 28)
    assert data.classes == ("0", "1", "2", "3")
    assert torch.equal(data.train.images[:, 0], torch.from_numpy(pixels[:8]).byte())
    assert torch.equal(data.test.images[:, 0], torch.from_numpy(pixels[8:]).byte())
    assert data.test.labels.tolist() == [0, 1, 2, 3]
    assert load(str(tmp_path), 32).train.images.shape == (8, 1, 32, 32)


def test_image_folder_without_a_split(tmp_path):
    write_images(tmp_path / "cat", count=10, color=(255, 0, 0))
    write_images(tmp_path / "dog", count=5, color=(0, 0, 255))
    data = load(str(tmp_path), 8)
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (12, 3)
    for split in (data.train, data.test):
        for image, label in zip(split.images, split.labels, strict=True):
            assert image[:, 0, 0].tolist() == ([255, 0, 0] if label == 0 else [0, 0, 255])


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_image_folder_with_a_split(tmp_path, test_name):
    for name, count in (("train", 4), (test_name, 2)):
        for label in ("a", "b"):
            write_images(tmp_path / name / label, count)
    data = load(str(tmp_path), 8)
    assert (len(data.train), len(data.test)) == (8, 4)
    assert data.train.images.shape == (8, 3, 8, 8)


def test_limit(tmp_path):
    data = load(None, 8).limited(5)
    assert (len(data.train), len(data.test)) == (5, 5)


def spoil_missing(folder):
    return folder / "nowhere", "There is no folder"


def spoil_a_file(folder):
    (folder / "file").write_text("")
    return folder / "file", "is not a folder"


def spoil_empty(folder):
    return folder, "holds neither IDX files nor one sub-folder of images for each of two or more classes"


def spoil_class_without_images(folder):
    write_images(folder / "a")
    (folder / "b").mkdir()
    return folder, "b holds no images"


def spoil_image(folder):
    write_images(folder / "a")
    write_images(folder / "b")
    (folder / "b" / "3.png").write_bytes(b"not a picture")
    return folder, "3.png cannot be read as an image"


def spoil_idx_length(folder):
    write_idx_set(folder)
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    return folder, "t10k-images-idx3-ubyte is cut short or damaged"


def spoil_idx_gzip(folder):
    write_idx_set(folder, ".gz")
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])
    return folder, "train-images-idx3-ubyte.gz cannot be read"


def spoil_idx_header(folder):
    write_idx_set(folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(b"<html>")
    return folder, "train-labels-idx1-ubyte is not an IDX file of unsigned bytes"


def spoil_idx_missing_labels(folder):
    write_idx_set(folder)
    (folder / "t10k-labels-idx1-ubyte").unlink()
    return folder, "has no file t10k-labels-idx1-ubyte"


def spoil_idx_counts(folder):
    write_idx_set(folder)
    write_idx(folder / "train-labels-idx1-ubyte", np.zeros(7))
    return folder, "do not hold as many images as labels"


SPOILERS = [value for name, value in sorted(globals().items()) if name.startswith("spoil_")]


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_broken_input_gives_one_sentence(tmp_path, spoil):
    path, text = spoil(tmp_path)
    with pytest.raises(DataError) as caught:
        load(str(path), 8)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_idx_of_another_type_is_refused(tmp_path):
    path = tmp_path / "floats"
    path.write_bytes(struct.pack(">HBBI", 0, 0x0D, 1, 1) + b"\0\0\0\0")
    with pytest.raises(DataError, match="is not an IDX file of unsigned bytes"):
        read_idx(path)

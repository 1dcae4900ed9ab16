"""Layers by model, by CSV file and from the command line."""

import pytest

from torch_dwconv.bench.layers import LAYERS_CSV, Layer, parse_layer, read_layers, select_layers

HEADER = ",".join(Layer._fields)


def test_a_model_is_its_rows():
    layers = select_layers("convnext_tiny")
    assert [layer.channels for layer in layers] == [96, 192, 384, 768]
    assert select_layers("all") == read_layers(LAYERS_CSV)


def test_a_csv_file_is_read(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(f"{HEADER}\nmine,8,2,10,12,3,5,2,1,1,2,4\n")
    assert select_layers(str(path)) == (Layer("mine", 8, 2, 10, 12, 3, 5, 2, 1, 1, 2, 4),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,channels\nmine,8\n", "must have the columns"),
        (f"{HEADER}\nmine,8,1,0,12,3,5,2,1,1,1,1\n", "positive whole numbers, got '0'"),
        (f"{HEADER}\nmine,8,1\n", "positive whole numbers, got None"),
    ],
)
def test_a_wrong_csv_file_is_refused(tmp_path, text, message):
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        select_layers(str(path))


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"one of mobilenet_v2, .*got 'resnet'"):
        select_layers("resnet")


@pytest.mark.parametrize(
    ("text", "batch", "layer"),
    [
        ("1,144,56,56,3,1", 1, Layer("cli", 144, 1, 56, 56, 3, 3, 1, 1, 1, 1, 1)),
        ("4,24,56,28,1x11,2x1", 4, Layer("cli", 24, 1, 56, 28, 1, 11, 2, 1, 1, 1, 1)),
        ("2,8,9,9,3,1,2x3,4", 2, Layer("cli", 8, 4, 9, 9, 3, 3, 1, 1, 2, 3, 1)),
    ],
)
def test_a_layer_of_the_command_line(text, batch, layer):
    assert parse_layer(text) == (batch, layer)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,8,9,9,3", "must be N,C,H,W,k,s"),
        ("1,8,9,9,3,1,1,1,1", "must be N,C,H,W,k,s"),
        ("1,8,9,-9,3,1", "positive whole numbers, got '-9'"),
        ("1,8,9,9,3x3x3,1", "positive whole numbers, got '3x3'"),
        ("1,8,1,9,4,1", "empty output"),
    ],
)
def test_a_wrong_layer_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_layer(text)

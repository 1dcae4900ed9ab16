"""transformers: tiny models of each architecture with depthwise layers, and files of save_pretrained."""

import copy

import pytest
import torch

from torch_dwconv import convert, revert

from .models import distance, layers_of_ours, lively

transformers = pytest.importorskip("transformers")

IMAGE = (torch.linspace(-1, 1, 2 * 3 * 64 * 64).sin().reshape(2, 3, 64, 64).double(),)
TOKENS = (torch.arange(1, 17)[None],)
WAVE = (torch.linspace(0, 50, 8000).sin().double()[None],)

# name: (class, configuration, input, depthwise layers, those that the model calls as modules)
MODELS = {
    "efficientnet": (
        "EfficientNet",
        {
            "image_size": 64,
            "depth_coefficient": 0.3,
            "width_coefficient": 0.5,
            "hidden_dim": 640,
            "initializer_range": 0.5,
        },
        IMAGE,
        8,
        8,
    ),
    "mobilenet_v1": ("MobileNetV1", {"image_size": 64}, IMAGE, 13, 13),
    "mobilenet_v2": ("MobileNetV2", {"image_size": 64}, IMAGE, 17, 17),
    "convnextv2": ("ConvNextV2", {"depths": [1] * 4, "hidden_sizes": [16] * 4}, IMAGE, 4, 4),
    "mamba": ("Mamba", {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 100}, TOKENS, 2, 0),
    "wav2vec2_conformer": (
        "Wav2Vec2Conformer",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "conv_dim": [16] * 7,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
        },
        WAVE,
        2,
        2,
    ),
    "convbert": (
        "ConvBert",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "vocab_size": 100,
            "embedding_size": 32,
        },
        TOKENS,
        2,
        2,
    ),
}


def made(name: str):
    cls, options, inputs, *_ = MODELS[name]
    model = getattr(transformers, f"{cls}Model")(getattr(transformers, f"{cls}Config")(**options))
    return lively(model, *inputs), inputs


@pytest.mark.parametrize("name", MODELS)
def test_architectures(name, calls_of_ours):
    *_, layers, called = MODELS[name]
    plain, inputs = made(name)
    classes = [type(module) for module in plain.modules()]
    ours = convert(copy.deepcopy(plain))
    assert len(layers_of_ours(ours)) == layers
    assert calls_of_ours(ours, *inputs) == called
    with torch.no_grad():
        assert distance(ours(*inputs)[0], plain(*inputs)[0]) < 1e-10
    assert [type(module) for module in revert(ours).modules()] == classes


def test_files(recipe):
    names = recipe("transformers")
    saved, loaded = names["model"].double().eval(), names["loaded"].double().eval()
    assert len(layers_of_ours(loaded)) == len(layers_of_ours(saved)) == 17
    torch.testing.assert_close(loaded.state_dict(), saved.state_dict(), rtol=0, atol=0)
    with torch.no_grad():
        torch.testing.assert_close(loaded(*IMAGE)[0], saved(*IMAGE)[0], rtol=0, atol=0)


def test_layers_are_initialised_as_plain_ones():
    """transformers looks for nn.Conv2d by isinstance."""
    plain = transformers.ConvNextV2Model(transformers.ConvNextV2Config(depths=[1] * 4, hidden_sizes=[16] * 4))
    ours = convert(copy.deepcopy(plain))
    for name in layers_of_ours(ours):
        weights = []
        for model in (plain, ours):
            layer = model.get_submodule(name)
            layer.weight = torch.nn.Parameter(torch.full_like(layer.weight, 7.0))
            torch.manual_seed(1)
            model._init_weights(layer)
            weights.append(layer.weight.detach())
        assert torch.equal(*weights) and not (weights[0] == 7).any()

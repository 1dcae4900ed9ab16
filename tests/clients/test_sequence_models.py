"""transformers' sequence models: converted, and with causal_conv1d installed; logits, gradients, cached generation."""

import copy
import importlib
import sys

import pytest
import torch

from torch_dwconv import causal_conv1d, convert, revert

from .models import distance, layers_of_ours

transformers = pytest.importorskip("transformers")

TOKENS = torch.tensor([[5, 17, 3, 42, 8, 1, 60, 23, 9, 31, 77], [2, 4, 8, 16, 32, 64, 3, 6, 12, 24, 48]])
NEW = 8  # tokens that are generated

SMALL = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,  # or the last token comes out again and again
}
ATTENTION = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
STATES = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_chunk_size": 8}

# folder: (class, configuration, depthwise layers)
MODELS = {
    "mamba": ("Mamba", SMALL, 2),
    "falcon_mamba": ("FalconMamba", SMALL, 2),
    "mamba2": (
        "Mamba2",
        SMALL | {"num_heads": 8, "head_dim": 8, "n_groups": 2, "state_size": 16, "chunk_size": 8},
        2,
    ),
    "jamba": (
        "Jamba",
        SMALL | ATTENTION | {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
        1,
    ),
    "bamba": ("Bamba", SMALL | ATTENTION | STATES | {"attn_layer_indices": [1]}, 1),
    "falcon_h1": ("FalconH1", SMALL | ATTENTION | STATES | {"mamba_d_ssm": 64}, 2),
    "granitemoehybrid": (
        "GraniteMoeHybrid",
        SMALL | ATTENTION | STATES | {"shared_intermediate_size": 64, "layer_types": ["mamba", "attention"]},
        1,
    ),
    "zamba2": (
        "Zamba2",
        SMALL
        | {"num_attention_heads": 4, "intermediate_size": 64, "n_mamba_heads": 8, "mamba_d_state": 16, "chunk_size": 8}
        | {"layers_block_type": ["mamba", "hybrid"]},
        2,
    ),
    "qwen3_next": (
        "Qwen3Next",
        SMALL
        | ATTENTION
        | {"head_dim": 8, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2}
        | {"linear_num_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        | {"shared_expert_intermediate_size": 16, "layer_types": ["linear_attention", "full_attention"]},
        1,
    ),
    "lfm2": ("Lfm2", SMALL | ATTENTION | {"layer_types": ["conv", "full_attention"]}, 1),
    "recurrent_gemma": (
        "RecurrentGemma",
        {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
        | {"intermediate_size": 64, "w_init_variance_scale": 1.0},
        2,
    ),
}
# It looks for no causal-conv1d: its layer is called in the first pass, and a step is written out.
CALLS_ITS_LAYER = ("recurrent_gemma",)


@pytest.fixture
def imported_anew():
    """imported_anew(folder, installed): the module of a model's classes. transformers looks for the package in it."""
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "causal_conv1d"}
    paths = {f"transformers.models.{folder}.modeling_{folder}" for folder in MODELS}
    kept |= {path: sys.modules[path] for path in paths if path in sys.modules}

    def forget():
        for name in [name for name in sys.modules if name.split(".")[0] == "causal_conv1d" or name in paths]:
            del sys.modules[name]

    def anew(folder: str, installed: bool):
        forget()
        if installed:
            causal_conv1d.install()
        return importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")

    yield anew
    forget()
    sys.modules.update(kept)


def made(module, folder: str):
    name, options, _ = MODELS[folder]
    config = getattr(transformers, f"{name}Config")(**options, pad_token_id=0, experts_implementation="eager")
    torch.manual_seed(0)
    return getattr(module, f"{name}ForCausalLM")(config).eval()


def results(model) -> list[torch.Tensor]:
    """The logits, and the gradients of the weights of depthwise layers."""
    logits = model(TOKENS, use_cache=False).logits
    weights = [module.weight for module in model.modules() if isinstance(module, torch.nn.Conv1d)]
    return [logits.detach(), *torch.autograd.grad(logits.square().mean(), weights)]


@pytest.mark.parametrize("installed", [False, True], ids=["converted", "installed"])
@pytest.mark.parametrize("folder", MODELS)
def test_sequence_models(folder, installed, imported_anew, calls_of_ours):
    layers = MODELS[folder][2]
    plain = made(imported_anew(folder, False), folder)
    ours = made(imported_anew(folder, installed), folder)
    ours.load_state_dict(plain.state_dict())
    classes = [type(module) for module in ours.modules()]
    convert(ours)
    assert len(layers_of_ours(ours)) == layers
    torch.testing.assert_close(ours.state_dict(), plain.state_dict(), rtol=0, atol=0)

    exact = results(copy.deepcopy(plain).double())
    for found, theirs, right in zip(results(ours), results(plain), exact, strict=True):
        assert distance(found.double(), right) < 2 * distance(theirs.double(), right) + 1e-6

    generated = []

    def generate():
        generated.append(ours.generate(TOKENS, do_sample=False, min_new_tokens=NEW, max_new_tokens=NEW))

    calls = calls_of_ours(generate)
    expected = plain.generate(TOKENS, do_sample=False, min_new_tokens=NEW, max_new_tokens=NEW)
    assert torch.equal(generated[0], expected) and len(set(expected[:, -NEW:].flatten().tolist())) > 2
    if folder in CALLS_ITS_LAYER:
        assert calls == layers
    else:
        assert calls == (layers * NEW if installed else 0)
    assert [type(module) for module in revert(ours).modules()] == classes


def test_the_recipe(recipe, imported_anew, calls_of_ours, monkeypatch):
    imported_anew("mamba", False)
    for package in (transformers, transformers.models.mamba):
        monkeypatch.delitem(vars(package), "MambaForCausalLM", raising=False)
    sys.modules.pop("transformers.models.mamba.modeling_mamba")
    model = recipe("transformers", 1)["model"]
    assert calls_of_ours(model, TOKENS) == 2

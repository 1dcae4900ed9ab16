"""peft, accelerate, Lightning, averages of weights and files."""

import copy

import pytest
import torch
from torch import nn

from torch_dwconv import convert, revert

from .models import Small, distance, layers_of_ours, small

IMAGE = torch.linspace(-1, 1, 2 * 3 * 16 * 16).sin().reshape(2, 3, 16, 16)


def test_peft(recipe):
    names = recipe("peft")
    assert len(layers_of_ours(names["model"])) == 11
    assert names["model"].get_nb_trainable_parameters()[0] > 0


def adapted(model: nn.Module, targets=("dw", "dw2", "stem"), **options) -> nn.Module:
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    config = peft.LoraConfig(r=16, target_modules=list(targets), init_lora_weights=False, **options)
    return peft.get_peft_model(model, config).eval()


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["LoRA", "DoRA", "rsLoRA"])
@pytest.mark.parametrize("before", [True, False], ids=["convert first", "adapt first"])
def test_adapters(options, before):
    """The same adapter, to the last shape, and its files in both kinds of model."""
    PeftModel = pytest.importorskip("peft").PeftModel

    models = {"plain": adapted(small(), **options)}
    models["ours"] = adapted(convert(small()), **options) if before else convert(adapted(small(), **options))
    shapes = [{k: v.shape for k, v in model.state_dict().items()} for model in models.values()]
    assert shapes[0] == shapes[1]
    expected = models["plain"](IMAGE).detach()
    assert len(layers_of_ours(models["ours"])) >= 2
    assert distance(models["ours"](IMAGE), expected) < 1e-6

    gradients = []
    for model in models.values():
        model(IMAGE).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)

    for name, model in models.items():
        model.save_pretrained(name)
    for source, base in [("plain", convert(small())), ("ours", small())]:
        loaded = PeftModel.from_pretrained(base, source).eval()
        assert distance(loaded(IMAGE), expected) < 1e-6
        assert len(layers_of_ours(loaded)) >= (2 if source == "plain" else 0)
        assert len(layers_of_ours(loaded.unload())) == (2 if source == "plain" else 0)


@pytest.mark.parametrize("options", [{}, {"use_dora": True}], ids=["LoRA", "DoRA"])
def test_merged_adapters(options):
    """Of the convolutions beside ours: peft merges no adapter of a grouped one, even of PyTorch's."""
    expected = adapted(small(), ["stem", "pw"], **options)(IMAGE).detach()
    model = adapted(convert(small()), ["stem", "pw"], **options)
    assert distance(model(IMAGE), expected) < 1e-6
    model.merge_adapter()
    assert distance(model(IMAGE), expected) < 1e-5
    model.unmerge_adapter()
    assert distance(model(IMAGE), expected) < 1e-5
    merged = model.merge_and_unload()
    assert distance(merged(IMAGE), expected) < 1e-5 and len(layers_of_ours(merged)) == 2


@pytest.mark.parametrize("kind", ["LoHa", "LoKr", "OFT", "IA3"])
def test_other_adapters(kind):
    peft = pytest.importorskip("peft")
    options = {"OFT": {"r": 0, "oft_block_size": 2}, "IA3": {"feedforward_modules": [], "init_ia3_weights": False}}
    outputs = []
    for model in (small(), convert(small())):
        torch.manual_seed(1)
        chosen = {"r": 2, "init_weights": False} if kind.startswith("Lo") else options[kind]
        config = getattr(peft, f"{kind}Config")(target_modules=["dw2"], **chosen)
        outputs.append(peft.get_peft_model(model, config).eval()(IMAGE).detach())
    assert distance(outputs[1], outputs[0]) < 1e-6


def test_accelerate(recipe, calls_of_ours):
    model = recipe("accelerate")["model"]
    image = torch.randn(1, 3, 64, 64)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert calls_of_ours(model, image) == 3


OFFLOAD = {
    "cpu_offload": lambda package, model: package.cpu_offload(model, torch.device("cpu")),
    "disk_offload": lambda package, model: package.disk_offload(model, "weights", torch.device("cpu")),
    "dispatch_model": lambda package, model: package.dispatch_model(
        model, {"": "cpu"}, main_device="cpu", force_hooks=True
    ),
}


@pytest.mark.parametrize("how", OFFLOAD)
def test_accelerate_offloaded_before(how, calls_of_ours):
    """Its hooks call the layer's own forward. What they leave behind, once removed, is that too."""
    accelerate = pytest.importorskip("accelerate")
    model = small()
    OFFLOAD[how](accelerate, model)
    convert(model)
    assert calls_of_ours(model, IMAGE) == len(layers_of_ours(model)) == 2
    assert distance(model(IMAGE), small()(IMAGE).detach()) < 1e-6
    revert(model)
    accelerate.hooks.remove_hook_from_submodules(model)
    assert layers_of_ours(model) == []
    convert(model)
    assert calls_of_ours(model, IMAGE) == 2
    assert distance(model(IMAGE), small()(IMAGE).detach()) < 1e-6


def test_accelerate_prepares():
    accelerate = pytest.importorskip("accelerate")
    model, accelerator = convert(small()).train(), accelerate.Accelerator(cpu=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    prepared, optimizer = accelerator.prepare(model, optimizer)
    before = model.dw.weight.detach().clone()
    accelerator.backward(prepared(IMAGE).square().sum())
    optimizer.step()
    assert len(layers_of_ours(accelerator.unwrap_model(prepared))) == 2
    assert not torch.equal(model.dw.weight, before)
    accelerator.save_model(model, "saved")
    loaded = accelerate.load_checkpoint_and_dispatch(small(), "saved/model.safetensors", device_map={"": "cpu"})
    assert distance(loaded(IMAGE), model.eval()(IMAGE).detach()) < 1e-6


def test_accelerate_without_weights():
    accelerate = pytest.importorskip("accelerate")
    with accelerate.init_empty_weights():
        model = convert(Small())
    assert len(layers_of_ours(model)) == 2 and model.dw.weight.is_meta
    model.load_state_dict(small().state_dict(), assign=True)
    assert distance(model.eval()(IMAGE), small()(IMAGE).detach()) < 1e-6


def test_lightning(recipe):
    names = recipe("Lightning")
    lightning = names["lightning"]

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = small()

        def training_step(self, batch, index):
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(IMAGE), batch_size=1)
    module = Module()
    lightning.Trainer(fast_dev_run=True, callbacks=[names["Convert"]()], **quiet).fit(module, batches)
    assert len(layers_of_ours(module)) == 2

    trainer = lightning.Trainer(max_epochs=1, enable_checkpointing=False, callbacks=[names["Convert"]()], **quiet)
    trainer.fit(module, batches)
    trainer.save_checkpoint("lightning.ckpt")
    loaded = Module.load_from_checkpoint("lightning.ckpt", weights_only=False)
    assert layers_of_ours(loaded) == []
    assert distance(loaded.net.eval()(IMAGE), module.net.eval()(IMAGE).detach()) < 1e-6


def test_averages_of_weights():
    model = convert(small())
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    assert len(layers_of_ours(average)) == 2
    assert distance(average(IMAGE), small()(IMAGE).detach()) < 1e-6
    plain = torch.optim.swa_utils.AveragedModel(small())
    plain.load_state_dict(average.state_dict())
    torch.optim.swa_utils.update_bn([IMAGE], average)
    assert not torch.equal(average.module.bn.running_mean, plain.module.bn.running_mean)


def test_safetensors():
    safetensors = pytest.importorskip("safetensors.torch")
    for source, target in [(convert(small()), Small()), (small(), convert(Small()))]:
        safetensors.save_model(source, "model.safetensors")
        missing, unexpected = safetensors.load_model(target, "model.safetensors")
        assert not missing and not unexpected
        assert distance(target.eval()(IMAGE), source(IMAGE).detach()) < 1e-6


def test_whole_models_in_files():
    """By class name, so whoever reads it has torch_dwconv; reverted, nobody needs it."""
    model = convert(small())
    torch.save(model, "ours.pt")
    assert len(layers_of_ours(torch.load("ours.pt", weights_only=False))) == 2
    torch.save(revert(copy.deepcopy(model)), "plain.pt")
    with open("plain.pt", "rb") as file:
        assert b"torch_dwconv" not in file.read()

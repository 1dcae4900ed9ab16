"""The classes of converted layers: made of the old class and ours, and a constructor of the old class."""

import copy
import functools
import gc
import inspect
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from torch_dwconv import DepthwiseConv1d, DepthwiseConv2d, DepthwiseConvTranspose2d, convert, revert

from .test_convert import conversion_report


class Plain(nn.Conv2d):
    """Another constructor, and nothing that changes what is computed, as in EfficientNet of transformers."""

    kind = "plain"

    def __init__(self, in_channels, depth_multiplier=1, kernel_size=3, **options):
        super().__init__(in_channels, in_channels * depth_multiplier, kernel_size, groups=in_channels, **options)
        self.note = "kept"

    @property
    def multiplier(self):
        return self.out_channels // self.in_channels

    def extra_repr(self):
        return super().extra_repr() + f", {self.kind}"


class Plainer(Plain):
    """A subclass of a subclass."""


class PlainTranspose(nn.ConvTranspose2d):
    pass


class PlainSequence(nn.Conv1d):
    pass


def test_the_class_of_a_converted_layer_constructs_what_the_old_class_does():
    cls = type(convert(nn.Conv2d(8, 8, 3, groups=8)))
    for arguments, options in [((8, 16, 3), {}), ((8, 4, 1, 1), {"bias": False}), ((8, 8, 3), {"groups": 8})]:
        clone, expected = cls(*arguments, **options), nn.Conv2d(*arguments, **options)
        assert type(clone) is nn.Conv2d and repr(clone) == repr(expected)
        assert [p.shape for p in clone.parameters()] == [p.shape for p in expected.parameters()]
    assert inspect.signature(cls) == inspect.signature(nn.Conv2d)
    assert nn.utils.skip_init(cls, 4, 6, 3).weight.shape == (6, 4, 3, 3)
    with pytest.raises(TypeError, match="missing 2 required positional arguments"):
        cls(8)


def test_the_class_of_a_converted_subclass_constructs_the_subclass():
    clone = type(convert(Plain(4)))(6, kernel_size=5)
    assert type(clone) is Plain and clone.weight.shape == (6, 1, 5, 5)


def test_our_own_class_keeps_its_constructor():
    assert type(DepthwiseConv2d(4, 4, 3))(4, 8, 3).groups == 4


def test_a_class_derived_from_that_of_a_converted_layer_says_what_to_derive_from():
    class Derived(type(convert(nn.Conv2d(4, 4, 3, groups=4)))):
        pass

    with pytest.raises(TypeError, match=r"Derived derives from the class of a converted layer.*Conv2d"):
        Derived(4, 8, 3)


def test_layers_of_one_class_get_one_class():
    first, second = convert(nn.Conv2d(4, 4, 3, groups=4)), convert(nn.Conv2d(6, 6, 5, groups=6))
    assert type(first) is type(second) and type(first) is not DepthwiseConv2d
    assert type(convert(Plain(4))) is type(convert(Plain(6)))


@pytest.mark.parametrize("make", [Plain, Plainer, lambda c: PlainTranspose(c, c, 3, groups=c)])
def test_a_subclass_that_changes_nothing_is_swapped(make, image, run):
    model = nn.Sequential(make(3).double())
    cls, keys = type(model[0]), list(model.state_dict())
    expected, before = run(copy.deepcopy(model), image), dict(vars(model[0]))
    assert conversion_report(model).swapped == ["0"]
    layer = model[0]
    assert isinstance(layer, cls) and isinstance(layer, (DepthwiseConv2d, DepthwiseConvTranspose2d))
    assert list(model.state_dict()) == keys
    torch.testing.assert_close(run(model, image), expected, rtol=1e-12, atol=1e-12)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer):
        assert type(twin) is type(layer) and torch.equal(twin(image), layer(image))
        assert type(revert(twin)) is cls and vars(twin).keys() == before.keys()
    assert vars(layer) == before
    torch.testing.assert_close(run(model, image), expected, rtol=0, atol=0)


def test_what_a_subclass_adds_for_others_to_use_stays():
    layer = convert(Plain(4, depth_multiplier=2))
    assert (layer.kind, layer.note, layer.multiplier) == ("plain", "kept", 2)
    assert repr(layer) == "DepthwisePlain(4, 8, kernel_size=(3, 3), stride=(1, 1), groups=4, plain)"


def test_the_one_dimensional_subclass():
    layer = convert(PlainSequence(4, 4, 3, groups=4))
    assert isinstance(layer, PlainSequence) and isinstance(layer, DepthwiseConv1d)


class WeightProperty(nn.Conv2d):
    @property
    def weight(self):
        return 2 * self._parameters["weight"]


class Call(nn.Conv2d):
    def __call__(self, input):
        return 2 * super().__call__(input)


class GetAttr(nn.Conv2d):
    def __getattr__(self, name):
        value = super().__getattr__(name)
        return 2 * value if name == "weight" else value


class GetAttribute(nn.Conv2d):
    def __getattribute__(self, name):
        return 2 if name == "stride" else super().__getattribute__(name)


class Slot(nn.Conv2d):
    __slots__ = ("dilation",)


class ConvForward(nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(input, 2 * weight, bias)


class Buffered(nn.Conv2d):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register_buffer("scale", torch.ones(1))


class Activated(nn.Conv2d):
    """Its parent applies the activation; ours would too."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.activation = "relu"


class ActivatedByChild(Activated):
    def __init__(self, *arguments, **options):
        nn.Conv2d.__init__(self, *arguments, **options)
        self.activation = nn.ReLU()


class New(nn.Conv2d):
    """As the classes that FSDP2 gives to modules: it makes layers of its parent's class."""

    def __new__(cls, *arguments, **options):
        return nn.Conv2d.__new__(cls.__mro__[0])


class ActivationNone(nn.Conv2d):
    activation = None


class Unsubclassable(nn.Conv2d):
    def __init_subclass__(cls, **options):
        raise RuntimeError("no subclasses, please")


class OutputPadding(nn.ConvTranspose2d):
    def _output_padding(self, *arguments, **options):
        return [1, 1]


@pytest.mark.parametrize(
    "cls, reason",
    [
        (WeightProperty, "it has a weight of its own"),
        (Call, "it has a __call__ of its own"),
        (GetAttr, "it has a __getattr__ of its own"),
        (GetAttribute, "it has a __getattribute__ of its own"),
        (Slot, "it has a dilation of its own"),
        (ConvForward, "its forward calls mul: "),
        (Buffered, "Buffered, a subclass that adds scale"),
        (Activated, "its activation would mean something else in a DepthwiseConv2d"),
        (ActivatedByChild, "its activation would mean something else in a DepthwiseConv2d"),
        (New, "it has a __new__ of its own"),
        (ActivationNone, "its activation would mean something else in a DepthwiseConv2d"),
        (Unsubclassable, "Unsubclassable cannot be subclassed: RuntimeError: no subclasses, please"),
        (OutputPadding, "it has a _output_padding of its own"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_subclass_that_changes_something_stays(cls, reason):
    layer = (nn.Conv2d if cls is WeightProperty else cls)(4, 4, 3, stride=2, groups=4)
    layer.__class__ = cls  # nn.Module constructs none whose weight is a property
    report = conversion_report(nn.Sequential(layer))
    assert type(layer) is cls and report.swapped == []
    assert reason in report.left["0"]


class Meta(type):
    pass


class WithMetaclass(nn.Conv2d, metaclass=Meta):
    pass


class WithSlots(nn.Conv2d):
    __slots__ = ("extra",)


@pytest.mark.parametrize("cls", [WithMetaclass, WithSlots])
def test_metaclasses_and_slots(cls):
    layer = convert(cls(4, 4, 3, groups=4))
    assert isinstance(layer, DepthwiseConv2d) and type(type(layer)) is type(cls)
    assert type(revert(copy.deepcopy(layer))) is cls


def test_a_class_of_a_function_pickles_as_little_as_before():
    class Local(nn.Conv2d):
        pass

    for layer in (Local(4, 4, 3, groups=4), convert(Local(4, 4, 3, groups=4))):
        with pytest.raises((AttributeError, pickle.PicklingError), match=r"<locals>.Local"):
            pickle.dumps(layer)


def test_classes_are_not_kept_alive():
    class Local(nn.Conv2d):
        pass

    convert(Local(4, 4, 3, groups=4))
    reference = weakref.ref(Local)
    del Local
    gc.collect()
    assert reference() is None


def test_an_activation_of_none_is_none():
    layer = convert(nn.Conv2d(4, 4, 3, groups=4))
    layer.activation = None  # a user who has tried one takes it away again
    assert isinstance(convert(revert(layer)), DepthwiseConv2d)


def test_attributes_are_set_without_the_class_seeing_it():
    class Watched(nn.Conv2d):
        def __setattr__(self, name, value):
            assert name != "padding" or "padding" not in vars(self)
            super().__setattr__(name, value)

        def forward(self, x):
            return super().forward(nn.functional.pad(x, (1, 0)))

    layer = convert(Watched(4, 4, 3, groups=4))
    assert layer.padding == ((0, 0), (1, 0)) and revert(layer).padding == (0, 0)


def test_a_prune_mask_is_no_addition():
    layer = Plain(4)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    assert isinstance(convert(layer), DepthwiseConv2d)


def test_a_subclass_parametrised(image, run):
    layer = nn.utils.parametrizations.weight_norm(Plain(3).double())
    expected = run(copy.deepcopy(layer), image)
    assert isinstance(convert(layer), DepthwiseConv2d)
    torch.testing.assert_close(run(layer, image), expected)
    assert parametrize.type_before_parametrizations(revert(layer)) is Plain


def test_files_of_the_version_before_this_one_revert():
    """Then the class was DepthwiseConv2d itself, and a timm layer had its class and padding in an attribute."""
    plain, same = nn.Conv2d(4, 4, 3, groups=4), Plain(4, stride=2)
    plain.__class__ = same.__class__ = DepthwiseConv2d
    same._converted_from, same.padding = (Plain, (0, 0)), "same"
    plain, same = pickle.loads(pickle.dumps([plain, same]))
    assert type(revert(plain)) is nn.Conv2d
    assert type(revert(same)) is Plain and same.padding == (0, 0) and not hasattr(same, "_converted_from")


def test_a_layer_replicated_for_data_parallel(image):
    layer = convert(nn.Conv2d(3, 3, 3, groups=3).double())
    replica = layer._replicate_for_data_parallel()
    replica.weight, replica.bias = layer.weight, layer.bias
    assert torch.equal(replica(image), layer(image))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_a_converted_subclass_scripts_and_compiles(image):
    layer = convert(Plain(3).double())
    expected = layer(image)
    torch.testing.assert_close(torch.jit.script(layer)(image), expected)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(image), expected)


def hooked_forward(module):
    """What accelerate does to a module: its forward becomes a function that calls the old one, bound."""
    calls = []
    module._old_forward, module._hf_hook = module.forward, object()

    def forward(module, *arguments, **options):
        calls.append(module)
        return module._old_forward(*arguments, **options)

    module.forward = functools.update_wrapper(functools.partial(forward, module), module._old_forward)
    return calls


def unhook(module):
    module.forward = module._old_forward
    del module._old_forward, module._hf_hook


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(3, 3, 3, groups=3), lambda: Plain(3)], ids=["exact", "subclass"])
def test_a_forward_that_wraps_the_old_one_leads_to_ours(make, image, monkeypatch):
    layer = make().double()
    calls = hooked_forward(layer)
    expected, cls = layer(image), type(layer)
    assert conversion_report(layer).swapped == [""]
    with monkeypatch.context() as patch:
        patch.setattr(nn.Conv2d, "_conv_forward", None)
        torch.testing.assert_close(layer(image), expected)
    unhook(layer)
    torch.testing.assert_close(layer(image), expected)
    assert len(calls) == 2 and type(revert(layer)) is cls
    assert torch.equal(layer(image), expected)


class Padded(nn.Conv2d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (1, 0)))


@pytest.mark.parametrize("cls", [nn.Conv2d, nn.ConvTranspose2d, Padded, PlainTranspose])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("then", ["stays", "goes"])
def test_accelerate_and_every_kind_of_layer(cls, when, then, image):
    layer = cls(3, 3, 3, groups=3).double()
    expected = layer(image)
    if when == "before":
        calls = hooked_forward(layer)
        assert conversion_report(layer).swapped == [""]
    else:
        calls = hooked_forward(convert(layer))
    torch.testing.assert_close(layer(image), expected)
    torch.testing.assert_close(copy.deepcopy(layer)(image), expected)
    if then == "goes":
        unhook(layer)
        torch.testing.assert_close(layer(image), expected)
    assert type(revert(layer)) is cls
    torch.testing.assert_close(layer(image), expected)
    if then == "stays":
        unhook(layer)
    assert layer.forward.__func__ is cls.forward and torch.equal(layer(image), expected)
    assert len(calls) == (2 if then == "goes" else 3)


@pytest.mark.parametrize("cls", [nn.ConvTranspose2d, Padded])
def test_another_wrapped_forward_stays(cls):
    layer = cls(3, 3, 3, groups=3)
    layer.forward = functools.partial(layer.forward)
    assert conversion_report(layer).left == {"": "its forward was replaced on the instance"}

"""Single calls that are a step: each becomes a block node of one step, with views round it where it is about tokens."""

from typing import Any

from torch import Tensor, fx

from ....operators.block.steps import DENSE, DEPTHWISE, MEAN, Step
from ....operators.schemas import FORWARD
from ....operators.symbolic import is_always
from ..depthwise import options_of, zero_padding
from ..program import Program, Unfit, arguments_of, aten, module_name, value
from .draft import DTYPES, Drafts, Part, input_of
from .views import as_image, call, fits_an_image

_CONVOLUTIONS = (aten.conv2d.default, aten.conv2d.padding, aten.convolution.default)
_LIMIT = 2**31  # of a kernel size, a stride, a padding


def draft_steps(program: Program, drafts: Drafts) -> None:
    """Everything but LayerNorm (prologues.py), of which it has to be known who reads it."""
    makers: dict[Any, Any] = dict.fromkeys(_CONVOLUTIONS, _convolution) | {
        FORWARD: _depthwise,
        aten.linear.default: _linear,
        aten.mean.dim: _mean,
        aten.adaptive_avg_pool2d.default: _mean,
    }
    for node in program.calls(*makers):
        if reason := no_kernels(value(node.args[0])):
            program.no_blocks.setdefault(reason)
            continue
        try:
            makers[node.target](program, drafts, node)
        except Unfit as reason:
            if node in program.convolutions:
                program.unfit.setdefault(node, str(reason))


def no_kernels(input: Tensor) -> str | None:
    """Why there are no kernels of blocks for tensors like this one."""
    if input.dtype not in DTYPES:
        return f"there are none in {str(input.dtype).removeprefix('torch.')}"
    return None if input.device.type == "cpu" else f"there are none on {input.device}"


def checked(node: fx.Node) -> Tensor:
    """The fake input of a call.

    Raises:
        Unfit: it has no numbers, or the result has another dtype.
    """
    input = value(node.args[0])
    if value(node).dtype != input.dtype:
        raise Unfit("it changes the dtype")
    if any(isinstance(size, int) and size == 0 for size in (*input.shape, *value(node).shape)):
        raise Unfit("it has no numbers")
    return input


def _constants(program: Program, weight, bias, channels: int) -> list[Tensor]:
    """The weight and the bias of a layer, zeros if it has none.

    Raises:
        Unfit: they are not constant.
    """
    if weight not in program.constants or (bias is not None and bias not in program.constants):
        raise Unfit("its weight or bias depends on the input")
    kernel = program.constants[weight]
    return [kernel, kernel.new_zeros(channels) if bias is None else program.constants[bias]]


def _pair(option) -> tuple[int, int]:
    both = (*option,) if isinstance(option, (list, tuple)) else (option,)
    return both[0], both[-1]


def _check_step(step: Step) -> None:
    """Raises Unfit if kernels do not take a convolution's step."""
    if not all(isinstance(number, int) and 0 <= number < _LIMIT for number in step):
        raise Unfit("a stride, a padding or a dilation of it varies, or is beyond all bounds")
    if not _is_within(step.padding, step[3:5], step[7:9]):
        raise Unfit("its padding reaches further than its kernel")


def _is_within(padding, kernel, dilation) -> bool:
    """Whether each output has a tap inside the input, or may have."""
    reach = [step * (taps - 1) for step, taps in zip(dilation, kernel, strict=True)] * 2
    return all(side <= most for side, most in zip(padding, reach, strict=True))


def _convolution(program: Program, drafts: Drafts, node: fx.Node) -> None:
    options: dict[str, Any] = options_of(node)
    input, weight = checked(node), value(node.args[1])
    if options.get("transposed"):
        raise Unfit("it is a transposed convolution")
    if weight.dim() != 4 or input.dim() != 4:
        raise Unfit(f"it has {weight.dim() - 2} dimensions" if weight.dim() != 4 else "its input has no batch")
    if options["groups"] != 1:
        raise Unfit(f"it has {options['groups']} groups")
    outputs, channels, *kernel = weight.shape
    stride, dilation = _pair(options["stride"]), _pair(options["dilation"])
    if isinstance(options["padding"], str):
        total = [
            step * (taps - 1) * (options["padding"] == "same") for step, taps in zip(dilation, kernel, strict=True)
        ]
        top, left = total[0] // 2, total[1] // 2
        padding = top, left, total[0] - top, total[1] - left
    else:
        padding = _pair(options["padding"]) * 2
    source = input_of(node)
    if (before := zero_padding(source)) is not None:
        wider = tuple(own + more for own, more in zip(padding, before, strict=True))
        if _is_within(wider, kernel, dilation):
            source, padding = input_of(source), wider
    step = Step._make((DENSE, 0, outputs, *kernel, *stride, *dilation, *padding, 0))
    _check_step(step)
    constants = _constants(program, node.args[1], arguments_of(node)["bias"], outputs)
    drafts.turn(node, source, Part(step, channels, constants, module_name(node), [node]))


def _depthwise(program: Program, drafts: Drafts, node: fx.Node) -> None:
    input, weight = checked(node), value(node.args[1])
    given = arguments_of(node)
    outputs, _, *kernel = weight.shape
    if outputs == 0:
        raise Unfit("it has no numbers")
    stride = given["stride_h"], given["stride_w"]
    dilation = given["dilation_h"], given["dilation_w"]
    before = given["pad_top"], given["pad_left"]
    if not all(isinstance(number, int) for number in (*stride, *dilation, *before)):
        raise Unfit("its padding depends on the size of its input")
    behind = [
        _padding_behind(
            input.shape[2 + axis], value(node).shape[2 + axis], kernel[axis], stride[axis], dilation[axis], before[axis]
        )
        for axis in range(2)
    ]
    step = Step._make((DEPTHWISE, given["activation"], outputs, *kernel, *stride, *dilation, *before, *behind, 0))
    _check_step(step)
    constants = _constants(program, node.args[1], node.args[2], outputs)
    channels = _fixed(input.shape[1], outputs)
    drafts.turn(node, input_of(node), Part(step, channels, constants, module_name(node), [node]))


def _fixed(channels, usual: int) -> int:
    """The number of channels, which is `usual` if it is a symbol that has no other value.

    Raises:
        Unfit: it varies.
    """
    if isinstance(channels, int):
        return channels
    if is_always(channels == usual):
        return usual
    raise Unfit("its number of channels varies")


def _padding_behind(size, output, taps: int, stride: int, dilation: int, before: int) -> int:
    """The padding at the bottom or at the right, of which the operator tells by the size of its output.

    Raises:
        Unfit: there is none that gives this output for all sizes that vary.
    """
    reach = dilation * (taps - 1) + 1
    for behind in (before, *range(reach + stride + 1)):
        if is_always((size + before + behind - reach) // stride + 1 == output):
            return behind
    raise Unfit("its padding depends on the size of its input")


def _linear(program: Program, drafts: Drafts, node: fx.Node) -> None:
    checked(node)
    given = arguments_of(node)
    source, weight = input_of(node), value(given["weight"])
    if weight.dim() != 2 or not fits_an_image(source):
        raise Unfit("its operands have other dimensions")
    outputs, channels = weight.shape
    kernel, bias = _constants(program, given["weight"], given["bias"], outputs)
    part = Part(Step(DENSE, 0, outputs), channels, [kernel[:, :, None, None], bias], module_name(node))
    with program.graph.inserting_before(node):
        image, back = as_image(program, source)
        batch, _, height, width = value(image).shape
        block = drafts.add(image, part, (batch, outputs, height, width), node)
        result = back(block)
    program.replace(node, result)


def _mean(program: Program, drafts: Drafts, node: fx.Node) -> None:
    input, given = checked(node), arguments_of(node)
    if input.dim() != 4:
        raise Unfit("its input has other dimensions")
    keep = True
    if node.target is aten.adaptive_avg_pool2d.default:
        if [*given["output_size"]] != [1, 1]:
            raise Unfit("its result is larger than a pixel")
    elif given["dtype"] is not None or sorted(dim % 4 for dim in given["dim"] or ()) != [2, 3]:
        raise Unfit("it is no mean over height and width")
    else:
        keep = given["keepdim"]
    channels = input.shape[1]
    if not isinstance(channels, int):
        raise Unfit("its number of channels varies")
    part = Part(Step(MEAN, 0, channels), channels, [], module_name(node))
    if keep:
        drafts.turn(node, input_of(node), part)
        return
    with program.graph.inserting_before(node):
        kept = call(program, aten.mean.dim, node.args[0], [2, 3], True)
        kept.meta = {**node.meta, **kept.meta}
        result = call(program, aten.squeeze.dims, kept, [2, 3])
    drafts.turn(kept, input_of(node), part)
    program.replace(node, result)

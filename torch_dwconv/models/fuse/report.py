"""FuseReport: what fuse did, by the names of the model's layers."""

from dataclasses import dataclass, field

from ..convert.swap import by_reason


@dataclass
class FuseReport:
    """What `fuse` did. A layer that is called several times has a name for each call: "conv", "conv (call 2)".

    Attributes:
        inputs (list[str]): the arguments that the program takes, with the sizes that may vary by name.
        converted (list[str]): depthwise convolutions of PyTorch that now run on this package's operator.
        fused (dict[str, str]): convolutions that took something over, each with what it was.
        blocks (dict[str, str]): the steps of each block, by the module that they are from.
        no_blocks (list[str]): why there are no blocks in some dtype or on some device.
        left (dict[str, str]): depthwise convolutions that have not taken over all that they might have, and other
            convolutions before a normalisation that stays, each with the reason.
    """

    inputs: list[str] = field(default_factory=list)
    converted: list[str] = field(default_factory=list)
    fused: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    no_blocks: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"inputs: {'; '.join(self.inputs)}", f"converted: {len(self.converted)}"]
        if self.converted:
            lines.append(f"  {', '.join(name or '(the model)' for name in self.converted)}")
        lines += [f"fused: {len(self.fused)}", *by_reason(self.fused)]
        lines += [", ".join((f"blocks: {len(self.blocks)}", *self.no_blocks))]
        lines += [f"  {name or '(the model)'}: {steps}" for name, steps in self.blocks.items()]
        lines += [f"left: {len(self.left)}", *by_reason(self.left)]
        return "\n".join(lines)

"""Whether weights are what they were when something was made of them: packed weights are never used for others."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Snapshot:
    """What some plain weights are at a moment: where they lie, their versions, and one element of each.

    Every write that autograd would notice changes a version. A write through .data, by which averages of weights are
    often kept, changes none: it shows in the element, unless it leaves just that one as it was. The views of those
    elements also hold the memory, so that nothing else can come to lie there.
    """

    def __init__(self, weights: Sequence[Tensor]):
        with torch.inference_mode(False), torch.no_grad():
            self.pointers, self.versions = [w.data_ptr() for w in weights], [w._version for w in weights]
            self.views = [_one_element(weight) for weight in weights if weight.numel()]
            self.elements = torch.cat(self.views)

    def shows(self, weights: Sequence[Tensor]) -> bool:
        """Whether these are the same weights, unchanged; their sizes, strides and dtypes are not looked at."""
        return (
            [w._version for w in weights] == self.versions
            and [w.data_ptr() for w in weights] == self.pointers
            and torch.equal(torch.cat(self.views), self.elements)
        )


def _one_element(weight: Tensor) -> Tensor:
    """The bytes of one element. It has the weight's memory and knows nothing of the tensor, which may be freed."""
    offset = weight.storage_offset() + sum(
        size // 2 * step for size, step in zip(weight.shape, weight.stride(), strict=True)
    )
    element = torch.empty(0, dtype=weight.dtype, device=weight.device)
    return element.set_(weight.untyped_storage(), offset, (1,), (1,)).view(torch.uint8)

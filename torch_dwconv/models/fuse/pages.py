"""Memory in huge pages, for weights that every call reads from end to end."""

import mmap
from itertools import accumulate

import torch
from torch import Tensor

_HUGE_PAGE = 2 << 20
_LINE = 64


def in_huge_pages(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the contiguous ones on the CPU, one behind the other in huge pages, where the system has those.

    Processors fetch ahead up to the end of a page: with pages of 4 KB a stream of weights waits at each. With all
    of the process's memory in huge pages MobileNetV2 gained 7 %, MobileNetV4 8 % (one image, Sapphire Rapids,
    2026-11-30). Each copy has a storage of its own.
    """
    moved = {name: tensor for name, tensor in tensors.items() if _can_move(tensor)}
    offsets = dict(zip(moved, accumulate((_lines(tensor) for tensor in moved.values()), initial=0), strict=False))
    size = sum(map(_lines, moved.values()))
    if not hasattr(mmap, "MADV_HUGEPAGE") or size < _HUGE_PAGE:
        return tensors
    # Shared memory, which is Python's default, has huge pages on few systems.
    pages = mmap.mmap(-1, (-(-size // _HUGE_PAGE) + 1) * _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_HUGEPAGE)
    first = -torch.frombuffer(pages, dtype=torch.uint8).data_ptr() % _HUGE_PAGE
    copies = {}
    for name, tensor in moved.items():
        # What frombuffer returns keeps the pages.
        place = torch.frombuffer(pages, dtype=tensor.dtype, count=tensor.numel(), offset=first + offsets[name])
        copies[name] = place.view(tensor.shape).copy_(tensor)
    return {name: copies.get(name, tensor) for name, tensor in tensors.items()}


def _can_move(tensor: Tensor) -> bool:
    plain = type(tensor) is Tensor and tensor.device.type == "cpu" and tensor.layout is torch.strided
    return plain and tensor.numel() > 0 and tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def _lines(tensor: Tensor) -> int:
    """Bytes in whole lines of a cache."""
    return -(-tensor.nbytes // _LINE) * _LINE

"""convert and revert: the depthwise layers of a model become ours, and PyTorch's again."""

from .swap import Report, convert, revert

__all__ = ["Report", "convert", "revert"]

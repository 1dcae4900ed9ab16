"""Our layers in whole models: convert and revert, and fuse."""

from .convert import Report
from .convert.classes import rebuild_layer
from .convert.timm_norms import rebuild_norm
from .fuse import FusedModule, FuseReport

__all__ = ["FuseReport", "FusedModule", "Report"]

# Pickles name these by this module, wherever their files lie.
for _pickled in (FuseReport, FusedModule, Report, rebuild_layer, rebuild_norm):
    _pickled.__module__ = __name__

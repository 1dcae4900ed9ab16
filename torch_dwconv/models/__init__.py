"""Our layers in whole models: convert and revert, and fuse."""

from .convert import Report
from .convert.classes import rebuild_layer
from .fuse import FusedModule, FuseReport
from .fuse.inputs import Inputs, TensorSpec

__all__ = ["FuseReport", "FusedModule", "Report"]

# Pickles name these by this module, wherever their files lie.
for _pickled in (FuseReport, FusedModule, Inputs, Report, TensorSpec, rebuild_layer):
    _pickled.__module__ = __name__

"""Our layers in whole models: convert and revert, and fuse."""

from .convert import Report
from .fuse import FusedModule, FuseReport

__all__ = ["FuseReport", "FusedModule", "Report"]

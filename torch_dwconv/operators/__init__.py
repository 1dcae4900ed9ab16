"""The operators: what loads them, checks them, differentiates them, and calls them by the shortest way."""

from . import autograd, block, fake, sequence, vmap  # noqa: F401  (they register Python kernels)

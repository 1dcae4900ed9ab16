"""Conditions on sizes, some of which are known only when a captured program runs."""

import torch

# Each function imports what it needs of torch.fx.experimental.symbolic_shapes, which takes long to import (SymPy).


def is_surely(condition) -> bool:
    """Whether a condition holds; of sizes that are not known, for all of them."""
    if condition is True or condition is False:
        return condition
    from torch.fx.experimental.symbolic_shapes import guard_or_false

    return guard_or_false(condition)


def is_always(condition) -> bool:
    """Whether a condition holds for every value that dynamic sizes may take; asking adds no guard."""
    if not isinstance(condition, torch.SymBool):
        return bool(condition)
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(condition)


def require(condition, text) -> None:
    """Raises RuntimeError(text()) unless the condition holds.

    A condition on sizes that are not known while a program is captured becomes a part of the program, which checks it.
    """
    if condition is True:
        return
    if condition is not False:
        from torch.fx.experimental.symbolic_shapes import guard_or_true

        if guard_or_true(condition):
            torch._check(condition)  # without the text: Dynamo takes none that holds sizes
            return
    raise RuntimeError(text())

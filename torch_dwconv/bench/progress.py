"""Progress bars, of the benchmarks and of the examples: for people who watch, not for files and logs."""

from typing import Any


def progress_bar(*arguments: Any, disable: bool = False, **options: Any) -> Any:
    """tqdm(*arguments, **options), which writes nothing where its output is no terminal.

    Elsewhere each step would be a line: a bar redraws itself with carriage returns, which a file keeps all.

    Args:
        disable: True for no bar in a terminal either.

    Raises:
        ImportError: tqdm is not installed.
    """
    from tqdm import tqdm

    return tqdm(*arguments, disable=disable or None, **options)

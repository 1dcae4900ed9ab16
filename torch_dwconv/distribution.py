"""The distribution that holds this package, and the one of another project that holds a package of the same name."""

import importlib.metadata
import warnings

NAME = "torch-depthwise"
OTHER = "torch-dwconv"  # on PyPI since 2020, not ours; ours had that name too before its first release
AUTHOR = "torch_dwconv contributors"  # as in pyproject.toml


def warn_of_other() -> None:
    """Warns if the other distribution is installed. Its files lie where ours do: the later one has replaced some.

    It takes 0.2 ms: PyTorch has looked through the same folders before, and importlib.metadata remembers them.
    """
    for found in importlib.metadata.distributions(name=OTHER):
        metadata = found.read_text("METADATA") or found.read_text("PKG-INFO")
        if metadata and f"\nAuthor: {AUTHOR}\n" not in metadata:  # none is left where an uninstallation was cut short
            warnings.warn(
                f"another project's distribution, {OTHER} {found.version}, is installed beside {NAME}: both have a "
                f"package torch_dwconv, and replace each other's files. To keep this one: pip uninstall {OTHER}, then "
                f"pip install --force-reinstall --no-deps {NAME} (in a checkout: its path)",
                stacklevel=2,
            )
            return

"""The distribution that holds this package, those with its CUDA library, and another project's of a similar name."""

import importlib.metadata
import importlib.util
import warnings
from pathlib import Path

from .version import __version__

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


def cuda_companion(major: str) -> Path | str | None:
    """The folder of the CUDA library for a major version of CUDA, where its distribution is installed; None if not.

    A sentence instead where the distribution is of another version: what they call of each other may differ.
    """
    name, package = f"{NAME}-cuda{major}", f"torch_dwconv_cuda{major}"
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = "of no known version"
    if version != __version__:
        return f"{name} {version} does not fit torch_dwconv {__version__}; run: pip install {name}=={__version__}"
    return Path(spec.submodule_search_locations[0])

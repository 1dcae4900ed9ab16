"""The distribution's name, and what happens where PyPI's distribution of another project is installed too."""

import functools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from torch_dwconv import distribution

ROOT = Path(__file__).resolve().parents[2]


def plant(folder: Path, name: str, version: str, author: str, kind: str = "dist-info") -> None:
    """Metadata as pip (dist-info) and setuptools (egg-info, beside the sources of an editable install) leave it."""
    path = folder / (f"{name}-{version}.dist-info" if kind == "dist-info" else f"{name}.egg-info")
    path.mkdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nAuthor: {author}\n"
    (path / ("METADATA" if kind == "dist-info" else "PKG-INFO")).write_text(text)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Plants metadata of a distribution where this process finds it."""
    monkeypatch.syspath_prepend(tmp_path)
    return functools.partial(plant, tmp_path)


@pytest.mark.parametrize("kind", ["dist-info", "egg-info"])
def test_the_other_distribution_is_named_with_the_command_that_removes_it(installed, kind):
    installed("torch_dwconv", "0.1.0", "Somebody", kind)
    sentence = r"another project's distribution, torch-dwconv 0\.1\.0, is installed beside torch-depthwise: .*"
    sentence += r"pip uninstall torch-dwconv, then pip install --force-reinstall --no-deps torch-depthwise"
    with pytest.warns(UserWarning, match=sentence) as warned:
        distribution.warn_of_other()
    assert len(warned) == 1


@pytest.mark.parametrize("kind", ["dist-info", "egg-info"])
def test_what_ours_was_called_before_is_no_other(installed, kind):
    """An environment, or a checkout, from before the distribution had its name."""
    installed("torch_dwconv", "0.1.0.dev0", distribution.AUTHOR, kind)
    installed("torch_depthwise", "0.1.0.dev0", distribution.AUTHOR, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distribution.warn_of_other()


def test_ours_from_before_does_not_hide_the_other(installed):
    installed("torch_dwconv", "0.1.0.dev0", distribution.AUTHOR, "egg-info")
    installed("torch_dwconv", "0.1.0", "Somebody")
    with pytest.warns(UserWarning, match=r"torch-dwconv 0\.1\.0, "):
        distribution.warn_of_other()


def test_a_folder_that_an_uninstallation_has_left_is_nothing(installed, tmp_path):
    installed("torch_dwconv", "0.1.0", "Somebody")
    (tmp_path / "torch_dwconv-0.1.0.dist-info" / "METADATA").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distribution.warn_of_other()


def test_an_import_warns(tmp_path):
    plant(tmp_path, "torch_dwconv", "0.1.0", "Somebody")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    command = [sys.executable, "-c", "import torch_dwconv"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    assert done.stderr.count("another project's distribution, torch-dwconv 0.1.0, is installed") == 1


def test_the_names_are_those_of_the_project():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == distribution.NAME
    assert project["authors"] == [{"name": distribution.AUTHOR}]


def test_the_distribution_of_the_cuda_library_is_found(installed, tmp_path):
    assert distribution.cuda_companion("13") is None
    (tmp_path / "torch_dwconv_cuda13").mkdir()
    (tmp_path / "torch_dwconv_cuda13" / "__init__.py").touch()
    assert distribution.cuda_companion("12") is None
    refusal = distribution.cuda_companion("13")
    assert refusal.startswith("torch-depthwise-cuda13 of no known version does not fit torch_dwconv ")
    installed("torch_depthwise_cuda13", distribution.__version__, distribution.AUTHOR)
    assert distribution.cuda_companion("13") == tmp_path / "torch_dwconv_cuda13"


def test_a_cuda_library_of_another_version_is_refused(installed, tmp_path):
    (tmp_path / "torch_dwconv_cuda12").mkdir()
    installed("torch_depthwise_cuda12", "9.9.9", distribution.AUTHOR)
    version = distribution.__version__
    assert distribution.cuda_companion("12") == (
        f"torch-depthwise-cuda12 9.9.9 does not fit torch_dwconv {version}; "
        f"run: pip install torch-depthwise-cuda12=={version}"
    )

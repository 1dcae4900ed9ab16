"""setup.py of torch-depthwise-cuda<major>, which `python -m tools.cuda_wheel` puts beside the library's package."""

from pathlib import Path

import setuptools
from setuptools.command.bdist_wheel import bdist_wheel

(LIBRARY,) = Path(__file__).parent.glob("*/libtorch_dwconv_cuda*.so")
PACKAGE = LIBRARY.parent.name
MAJOR = PACKAGE.removeprefix("torch_dwconv_cuda")
VERSION = Path(__file__).with_name("version").read_text()


class PlatformWheel(bdist_wheel):
    """For every Python, and one platform: it holds a shared library but no Python extension."""

    def finalize_options(self):
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


setuptools.setup(
    name=f"torch-depthwise-cuda{MAJOR}",
    version=VERSION,
    description=f"The CUDA {MAJOR} kernels of torch-depthwise",
    long_description=f"The CUDA library of torch-depthwise {VERSION} for a PyTorch of CUDA {MAJOR}.",
    license="MIT",
    author="torch_dwconv contributors",
    python_requires=">=3.10",
    install_requires=[f"torch-depthwise=={VERSION}"],
    packages=[PACKAGE],
    package_data={PACKAGE: ["*.so"]},
    cmdclass={"bdist_wheel": PlatformWheel},
)

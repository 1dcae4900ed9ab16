"""Every header of csrc/cuda opens alone: it includes what it uses."""

import subprocess

import pytest

from tests.cuda.build import EMULATOR, ROOT

HEADERS = sorted(path.relative_to(ROOT) for end in ("cuh", "h") for path in (ROOT / "csrc/cuda").rglob(f"*.{end}"))
FLAGS = "-std=c++20 -DDWCONV_EMULATED -fsyntax-only -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-unused-function"


@pytest.mark.parametrize("header", HEADERS, ids=str)
def test_opens_alone(header):
    source = f'#include "{header}"\n'
    command = ["c++", *FLAGS.split(), f"-I{EMULATOR}", f"-I{ROOT}", "-x", "c++", "-"]
    ran = subprocess.run(command, input=source, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr

"""Writes the hashes of pinned packages: python .ci/pin.py .ci/requirements*.txt

Each line of such a file that begins with `name==version` gets the SHA-256 of the file that pip takes for it here (on
Python 3.11 and x86-64 Linux). Nothing is installed, and little downloaded.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PIN = re.compile(r"([\w.-]+)==(\S+)")


def name_of(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def hashes(pins: list[str]) -> dict[str, str]:
    """By `name==version`."""
    with tempfile.TemporaryDirectory() as folder:
        report, wanted = Path(folder, "report.json"), Path(folder, "pins.txt")
        wanted.write_text("\n".join(pins))
        options = ["--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:", "--report", report]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *options, "-r", wanted], check=True)
        installs = json.loads(report.read_text())["install"]
    found = {}
    for install in installs:
        package = install["metadata"]
        pin = f"{name_of(package['name'])}=={package['version']}"
        found[pin] = install["download_info"]["archive_info"]["hashes"]["sha256"]
    return found


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        lines = path.read_text().splitlines()
        pins = [f"{name_of(match[1])}=={match[2]}" if (match := PIN.match(line)) else "" for line in lines]
        found = hashes([pin for pin in pins if pin])
        lines = [f"{p} --hash=sha256:{found[p]}" if p else line for p, line in zip(pins, lines, strict=True)]
        path.write_text("\n".join(lines) + "\n")
        print(f"{path}: {len(found)} hashes")


if __name__ == "__main__":
    main()

"""Checks the sdist and the wheel that ``make package`` has made, before they go to an index: ``make release-check``.

``make package`` has installed and used them, and looked at the symbols that the library imports (distributions.py).
Here come version, changelog and tag, which must agree, and what twine says about the metadata and auditwheel about the
library. Prints sizes and SHA-256.
"""

import argparse
import hashlib
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSION = re.compile(r"(\d+\.\d+\.\d+)(\.dev\d+)?")
RELEASED = re.compile(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})")
# What the wheel leaves to PyTorch, which is there: it depends on it.
OF_TORCH = {"libc10.so", "libtorch.so", "libtorch_cpu.so"}


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def disagreements(version: str, changelog: str, tags: list[str]) -> list[str]:
    """Sentences about what does not fit together: the version, the sections of CHANGELOG.md, the tags of this commit.

    A version in the making, 0.2.0.dev0, has no section: its changes are "Unreleased". A release, 0.2.0, has the newest
    section, with its date, and nothing is unreleased. A tag of a commit is v0.2.0, of a release only.
    """
    match = VERSION.fullmatch(version)
    if match is None:
        return [f"the version must be like 0.2.0 or 0.2.0.dev0, got {version}"]
    wrong = []
    unreleased, *sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:] or [""]
    if not unreleased.startswith("[Unreleased]\n"):
        wrong.append("the first section of CHANGELOG.md must be [Unreleased]")
    titles = [section.splitlines()[0] for section in sections]
    like = "a section of CHANGELOG.md must be like [0.2.0] - 2026-12-31"
    wrong += [f"{like}, got {title}" for title in titles if not RELEASED.fullmatch(title)]
    releases = [found.groups() for found in map(RELEASED.fullmatch, titles) if found]
    order = [(numbers(date), numbers(number)) for number, date in releases]
    if any(later[0] < earlier[0] or later[1] <= earlier[1] for later, earlier in itertools.pairwise(order)):
        wrong.append("the sections of CHANGELOG.md must go from the newest release to the oldest")
    newest = releases[0][0] if releases else "0.0.0"
    if match[2]:
        if numbers(match[1]) <= numbers(newest):
            wrong.append(f"{version} comes before {newest}, which CHANGELOG.md says is released")
    elif newest != version:
        wrong.append(f"CHANGELOG.md has no section of {version}, the newest is of {newest}")
    elif unreleased.strip() != "[Unreleased]":
        wrong.append(f"CHANGELOG.md has unreleased changes, and the version is {version}: what of them is in it?")
    return wrong + [f"the tag {tag} is not v{version}" for tag in tags if match[2] or tag != f"v{version}"]


def tags_of_head(root: Path = ROOT) -> list[str]:
    """The tags of the commit that is checked out which look like versions; none where there is no repository."""
    command = ["git", "-C", str(root), "tag", "--points-at", "HEAD", "--list", "v[0-9]*"]
    if not (root / ".git").exists():
        return []
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def version_here() -> str:
    return (ROOT / "torch_dwconv" / "version.py").read_text().split('"')[1]


def objections(audit: dict, wheel: str) -> list[str]:
    """What auditwheel's report says against the wheel's tag, apart from PyTorch's libraries, which it does not know."""
    (tag,) = re.findall(r"-(manylinux_\d+_\d+)_", wheel)
    wrong = []
    if numbers(re.sub("_x86_64|_aarch64", "", audit["sym_tag"])) > numbers(tag):
        wrong.append(f"its symbols need {audit['sym_tag']}, and its tag says {tag}")
    if foreign := sorted(audit["external_libs"].keys() - OF_TORCH):
        wrong.append(f"it needs {', '.join(foreign)}, which neither it nor PyTorch has")
    if audit["pure"] or audit["unsupported_isa"]:
        wrong.append("it has no library, or one for newer processors only")
    return [f"{wheel}: {sentence}" for sentence in wrong]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where make package has put the distributions")
    parser.add_argument("tools", type=Path, help="the bin folder with twine and auditwheel")
    arguments = parser.parse_args()
    version = version_here()
    (sdist,), (wheel,) = (list(arguments.folder.glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
    for path in (sdist, wheel):
        if not path.name.startswith((f"torch_depthwise-{version}.tar", f"torch_depthwise-{version}-py3-")):
            sys.exit(f"{path.name} is not of {version}: make package")
    subprocess.run([arguments.tools / "twine", "check", "--strict", sdist, wheel], check=True)
    report = subprocess.run(
        [arguments.tools / "auditwheel", "show", "--json", wheel], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    audit = json.loads(report)
    wrong = disagreements(version, (ROOT / "CHANGELOG.md").read_text(), tags_of_head()) + objections(audit, wheel.name)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"auditwheel: {audit['sym_tag']}, and of PyTorch {', '.join(sorted(audit['external_libs']))}")
    for path in (sdist, wheel):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(f"{path.stat().st_size / 1e6:6.1f} MB  sha256 {digest}  {path.name}")
    print(f"{version} is no release: its version ends in .dev" if "dev" in version else f"{version} is ready")


if __name__ == "__main__":
    main()

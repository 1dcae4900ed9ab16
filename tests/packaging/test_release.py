"""Version, changelog and tag agree, and what `make release-check` looks at can be wrong."""

import subprocess
import zipfile

import pytest

from tests.packaging import distributions, release
from tests.packaging.release import ROOT, disagreements, objections, tags_of_head, version_here

HEAD = "# Changelog\n\n## [Unreleased]\n"
NEW = "\n### Added\n\n- A thing.\n"
ONE, TWO = "\n## [0.1.0] - 2026-12-01\n\n- All.\n", "\n## [0.2.0] - 2026-12-24\n\n- More.\n"


def test_version_changelog_and_tag_agree():
    assert disagreements(version_here(), (ROOT / "CHANGELOG.md").read_text(), tags_of_head()) == []


@pytest.mark.parametrize(
    "version, changelog, tags",
    [
        ("0.1.0.dev0", HEAD + NEW, []),
        ("0.1.0", HEAD + ONE, []),
        ("0.1.0", HEAD + ONE, ["v0.1.0"]),
        ("0.2.0.dev0", HEAD + NEW + ONE, []),
        ("0.2.0.dev0", HEAD + ONE, []),
        ("0.2.0", HEAD + TWO + ONE, ["v0.2.0"]),
    ],
)
def test_what_agrees(version, changelog, tags):
    assert disagreements(version, changelog, tags) == []


@pytest.mark.parametrize(
    "version, changelog, tags, said",
    [
        ("0.1", HEAD + ONE, [], "the version must be like"),
        ("0.1.0.dev0", "# Changelog\n" + ONE, [], "the first section of CHANGELOG.md must be [Unreleased]"),
        ("0.1.0", HEAD + NEW, [], "CHANGELOG.md has no section of 0.1.0, the newest is of 0.0.0"),
        ("0.2.0", HEAD + NEW + ONE, [], "CHANGELOG.md has no section of 0.2.0, the newest is of 0.1.0"),
        ("0.1.0", HEAD + NEW + ONE, [], "CHANGELOG.md has unreleased changes"),
        ("0.1.0.dev0", HEAD + ONE, [], "0.1.0.dev0 comes before 0.1.0"),
        ("0.2.0", HEAD + ONE + TWO, [], "must go from the newest release to the oldest"),
        ("0.2.0", HEAD + TWO.replace("12-24", "11-24") + ONE, [], "must go from the newest release to the oldest"),
        ("0.1.0", HEAD + ONE.replace("2026-12-01", "soon"), [], "a section of CHANGELOG.md must be like"),
        ("0.1.0", HEAD + ONE, ["v0.2.0"], "the tag v0.2.0 is not v0.1.0"),
        ("0.1.0.dev0", HEAD + NEW, ["v0.1.0"], "the tag v0.1.0 is not v0.1.0.dev0"),
    ],
)
def test_what_does_not_agree(version, changelog, tags, said):
    assert any(said in sentence for sentence in disagreements(version, changelog, tags))


def test_tags_are_those_of_the_commit(tmp_path):
    assert tags_of_head(tmp_path) == []

    def git(*words):
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    git("init")
    for tags in (["v0.1.0"], ["v0.2.0", "checked"], []):
        git("commit", "--allow-empty", "--message", "a commit")
        for tag in tags:
            git("tag", tag)
        assert tags_of_head(tmp_path) == tags[:1]


AUDIT = {
    "sym_tag": "manylinux_2_24_x86_64",
    "external_libs": {"libc10.so": None, "libtorch_cpu.so": None},
    "pure": False,
    "unsupported_isa": False,
}


@pytest.mark.parametrize(
    "found, said",
    [
        ({}, None),
        ({"sym_tag": "manylinux_2_28_x86_64"}, None),
        ({"sym_tag": "manylinux_2_34_x86_64"}, "symbols need manylinux_2_34_x86_64, and its tag says manylinux_2_28"),
        ({"external_libs": {"libc10.so": None, "libm.so": None}}, "it needs libm.so, which neither it nor PyTorch has"),
        ({"unsupported_isa": True}, "for newer processors only"),
        ({"pure": True}, "it has no library"),
    ],
)
def test_what_auditwheel_finds(found, said):
    wrong = objections(AUDIT | found, "torch_depthwise-0.1.0-py3-none-manylinux_2_28_x86_64.whl")
    assert wrong == [] if said is None else len(wrong) == 1 and said in wrong[0]


def test_distributions_of_another_version_are_refused(tmp_path, monkeypatch):
    for name in ("torch_depthwise-9.9.9.tar.gz", "torch_depthwise-9.9.9-py3-none-manylinux_2_28_x86_64.whl"):
        (tmp_path / name).touch()
    monkeypatch.setattr("sys.argv", ["release", str(tmp_path), str(tmp_path)])
    with pytest.raises(SystemExit, match=r"torch_depthwise-9\.9\.9\.tar\.gz is not of "):
        release.main()


def test_a_wheel_with_another_library_is_refused(tmp_path):
    """One that a build of the CUDA library has left in the tree, for example."""
    wheel = tmp_path / "a.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in (distributions.LIBRARY, "torch_dwconv/lib/libtorch_dwconv_cuda13.so"):
            archive.writestr(name, "")
    with pytest.raises(SystemExit, match=r"a\.whl has torch_dwconv/lib/libtorch_dwconv_cuda13\.so too"):
        distributions.tag(wheel)

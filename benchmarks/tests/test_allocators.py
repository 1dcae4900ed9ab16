"""What memory that is asked for anew costs: each process has the setting that it is said to have."""

import json

import pytest

from benchmarks import allocators


@pytest.mark.slow
def test_every_kind_is_timed_under_every_setting(tmp_path, capsys, monkeypatch):
    kept = {name: allocators.SETTINGS[name] for name in ("none", "glibc keeps its pages")}
    monkeypatch.setattr(allocators, "SETTINGS", kept)
    arguments = ["--batch", "4", "--image-size", "96", "--samples", "2", "--rounds", "1", "--output", str(tmp_path)]
    assert allocators.main(arguments) == 0
    records = json.loads((tmp_path / "results.json").read_text())["allocators"]
    assert {(r["kind"], r["setting"]) for r in records} == {(k, s) for k in allocators.KINDS for s in kept}
    faults = {(r["kind"], r["setting"]): r["faults"] for r in records}
    plain = allocators.KINDS[0]
    assert faults[plain, "glibc keeps its pages"] < faults[plain, "none"] / 4
    printed = capsys.readouterr().out
    assert all(kind in printed for kind in allocators.KINDS) and "GLIBC_TUNABLES=glibc.malloc.mmap_max=0" in printed


def test_a_library_that_is_not_installed_has_no_environment(monkeypatch):
    setting = allocators.Setting({"A": "1"}, ("no_such_allocator", "libno-such"))
    assert allocators.environment_of(setting) is None
    monkeypatch.setattr(allocators.ctypes.util, "find_library", lambda name: f"lib{name}.so.9")
    environment = allocators.environment_of(setting)
    assert environment["LD_PRELOAD"] == "libno_such_allocator.so.9" and environment["A"] == "1"
    assert "LD_PRELOAD" not in allocators.environment_of(allocators.Setting({}))


def test_a_table_compares_with_no_setting():
    records = [
        {"kind": "a", "setting": "none", "seconds": 2.0, "faults": 1000.0, "peak_bytes": 3e6},
        {"kind": "a", "setting": "other", "seconds": 1.0, "faults": 10.0, "peak_bytes": 4e6},
        {"kind": "a", "setting": "other", "seconds": 0.5, "faults": 10.0, "peak_bytes": 4e6},
        {"kind": "a", "setting": "other", "seconds": 9.0, "faults": 10.0, "peak_bytes": 4e6},
    ]
    results = {"machine": allocators.runner.new_results("x")["machine"], "batch": 1, "size": 2, "allocators": records}
    table = "\n".join(allocators.document(results, "github"))
    rows = [[word.strip() for word in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    assert rows[2:] == [["a", "none", "2000", "1.00", "1,000", "3"], ["a", "other", "1000", "2.00", "10", "4"]]

"""The static gate's judgement, on made-up machine code: what breaks a rule is found, and nothing else."""

import datetime

import pytest

from tests.kernels.shapes import Shape
from tools.cuda_gate import counts, gate, rules
from tools.cuda_gate.compile import ARCHITECTURES, Code, read_report
from tools.cuda_gate.rules import Judge, Line, occupancy

NAME, PLAIN = "nchw_stream<float, 3, 1, 4>", "one_thread_per_output<float, 3>"
BUDGETS = [Line("*", "registers", 64, (), "")]


def kernel(name=NAME, **facts) -> Code:
    facts.setdefault("instructions", ["LDG.E.128", *["FFMA"] * 9, "STG.E.128"])
    return Code(name, registers=facts.pop("registers", 64), **facts)


def judge(*exceptions: Line) -> Judge:
    return Judge(BUDGETS, list(exceptions))


@pytest.mark.parametrize(
    "facts, rule",
    [
        ({"stack": 8}, "stack"),
        ({"spills": 4}, "spills"),
        ({"registers": 65}, "registers"),
        ({"shared": 49153}, "shared memory"),
        ({"instructions": ["LDG.E.128", "STL", "STG.E.128"]}, "local memory"),
        ({"instructions": ["LDG.E.128", "RED.E.ADD", "STG.E.128"]}, "atomics"),
        ({"instructions": ["LDG.E.128", "STG.E.64"]}, "wide accesses"),
        ({"instructions": ["LDG.E.128", "I2F.U32", "STG.E.128"], "loops": [(0, 2)]}, "integer division in a loop"),
    ],
)
def test_a_broken_rule_is_found(facts, rule):
    assert list(judge().broken(kernel(**facts))) == [rule]
    assert judge().broken(kernel()) == {}
    assert judge(Line("nchw*", rule, float("inf"), (), "for a reason")).broken(kernel(**facts)) == {}


def test_a_store_in_the_loop_of_grad_weight_is_found():
    code = kernel("nchw_grad_weight<float, 3, 1, 4>", instructions=["FFMA", "STG.E", "BRA"], loops=[(0, 2)])
    assert list(judge().broken(code)) == ["stores in grad_weight's loop"]


def test_kernels_for_comparison_keep_no_rules():
    assert judge().broken(kernel(PLAIN, registers=65, spills=4)) == {}


@pytest.mark.parametrize(
    "registers, arch, breach", [(72, "sm_75", False), (73, "sm_75", True), (72, "sm_90", True), (64, "sm_90", False)]
)
def test_an_exception_has_a_limit_and_architectures(registers, arch, breach):
    judged = judge(Line(NAME, "registers", 72, ("sm_75", "sm_80"), "it spills"))
    assert bool(judged.broken(kernel(registers=registers, arch=arch))) is breach
    assert bool(judged.unneeded({arch})) is (arch == "sm_75" and breach)


def test_layers_are_read_and_refused():
    layer = counts.layer("grad_input nhwc f16 n8 c144 56x28 k5 s2")
    assert layer[:3] == ("grad_input", "nhwc", "f16") and layer.outputs == 8 * 144 * 56 * 28
    assert layer.shape == Shape(8, 144, 1, 56, 28, 5, 5, 28, 14, 2, 2, pad_top=2, pad_left=2)
    with pytest.raises(ValueError, match="not a layer as"):
        counts.layer("both nhwc f16 n8 c144 56x28 k5 s2")


# NVIDIA's occupancy calculator, by hand: registers, threads of a block, and percent for 7.5, 8.0, 8.6 and 8.9.
@pytest.mark.parametrize(
    "registers, threads, percent",
    [
        (32, 128, (100, 100, 100, 100)),
        (64, 128, (100, 50, 66, 66)),
        (72, 128, (87, 43, 58, 58)),
        (40, 32, (50, 50, 33, 50)),
    ],
)
def test_occupancy(registers, threads, percent):
    for arch, expected in zip(("sm_75", "sm_80", "sm_86", "sm_89"), percent, strict=True):
        assert occupancy(kernel(registers=registers, threads=threads, arch=arch)) == expected, arch


def test_the_report_of_ptxas():
    report = """ptxas info    : Compiling entry function '_Z1fv' for 'sm_90'
ptxas info    : Function properties for _Z1fv
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 72 registers, used 1 barriers, 16 bytes stack frame, 64 bytes smem
ptxas info    : Compiling entry function '_Z1gv' for 'sm_90'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 20 registers"""
    assert read_report(report, "sm_90") == {
        "_Z1fv": Code("_Z1fv", "sm_90", registers=72, stack=16, spills=20, shared=64),
        "_Z1gv": Code("_Z1gv", "sm_90", registers=20),
    }


def test_files_are_read_and_refused(tmp_path):
    file = tmp_path / "lines.txt"
    file.write_text("# comment\n\nf<*> | registers <= 72 | sm_75 sm_120 | it spills\ng | local memory | small\n")
    assert rules.read(file) == [
        Line("f<*>", "registers", 72, ("sm_75", "sm_120"), "it spills"),
        Line("g", "local memory", float("inf"), (), "small"),
    ]
    for wrong in ("f | registers", "f | registers <= many | why", "f | registers | sm_42 | why", "f | registers | "):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=r"lines\.txt: "):
            rules.read(file)


def test_the_files_of_the_gate_are_sound():
    known = {*rules.numbers(kernel()), *rules.faults(kernel()), *gate.COUNTS, gate.RATIO}
    for line in [*rules.read(rules.BUDGETS), *rules.read(rules.EXCEPTIONS)]:
        assert line.rule in known, line
        if line.rule in gate.COUNTS:
            counts.layer(line.kernels)
    assert set(rules.DEVICES) == set(ARCHITECTURES)


def test_every_architecture_has_its_day():
    full, rest = {"sm_90"}, [arch for arch in ARCHITECTURES if arch != "sm_90"]
    days = [datetime.date(2026, 2, 26) + datetime.timedelta(i) for i in range(len(rest))]
    assert sorted(arch for day in days for arch in gate.compile_only(["today"], full, day)) == sorted(rest)
    assert gate.compile_only(["today"], set(ARCHITECTURES), days[0]) == []
    assert gate.compile_only(["others"], full, days[0]) == rest
    assert gate.compile_only(["sm_75", "sm_90"], full, days[0]) == ["sm_75"]


def test_families_that_are_not_there_are_no_pass(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["gate", "--only", "nchw_stream"])
    with pytest.raises(SystemExit) as stopped:
        gate.main()
    assert stopped.value.code == 2 and "names no family" in capsys.readouterr().err

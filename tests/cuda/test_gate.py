"""The static gate's judgement, on made-up machine code: what breaks a rule is found, and nothing else."""

import pytest

from tests.cuda import gate

NAME, PLAIN = "nchw_stream<float, 3, 1, 4, 7>", "one_thread_per_output<float, 3>"


def kernel(name=NAME, **facts) -> gate.Code:
    facts.setdefault("instructions", ["LDG.E.128", *["FFMA"] * 9, "STG.E.128"])
    return gate.Code(name, registers=facts.pop("registers", 64), **facts)


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
    assert list(gate.broken_rules(kernel(**facts))) == [rule]
    assert gate.broken_rules(kernel()) == {}


def test_a_store_in_the_loop_of_grad_weight_is_found():
    code = kernel("nchw_stream_grad_weight<float, 3, 1, 4>", instructions=["FFMA", "STG.E", "BRA"], loops=[(0, 2)])
    assert list(gate.broken_rules(code)) == ["stores in grad_weight's loop"]


@pytest.mark.parametrize(
    "ours, plain, raised, breach",
    [(21, 168, [], False), (21.1, 400, [], True), (25, 400, ["instructions <= 26"], False), (21, 167, [], True)],
)
def test_a_count_is_held_to_its_budget_and_to_an_eighth_of_the_plain_kernels(ours, plain, raised, breach):
    counts = {NAME: ("all", ours), PLAIN: ("all", plain)}
    assert gate.judged(NAME, counts, [(NAME, rule) for rule in raised])[1] is breach
    assert gate.judged(PLAIN, counts, []) == (f"{plain:.1f} (all), for comparison", False)


def test_every_kernel_that_is_judged_is_counted():
    text = gate.COUNTED.read_text().replace("f16", "__half")
    for name in gate.COUNT_BUDGETS:
        assert f"template __global__ void {name}(" in text
    for name, (_, ours) in gate.PLAIN.items():
        for size in (3, 5, 7):
            assert f"template __global__ void {name.format(size)}(" in text and ours.format(size) in gate.COUNT_BUDGETS


def test_the_count_is_of_multiply_adds_executed_once():
    code = kernel(instructions=["IADD3"] * 6 + ["FFMA"] * 18 + ["BRA"], loops=[(3, 24)])
    assert code.per_output("all", 9) == pytest.approx(25 * 9 / 18)
    assert code.per_output("loop", 9) == pytest.approx(22 * 9 / 18)


def test_exceptions_have_reasons():
    lines = [line for line in gate.EXCEPTIONS.read_text().splitlines() if line and not line.startswith("#")]
    assert all(len(line.split("|")) == 3 and line.split("|")[2].strip() for line in lines)
    assert len(gate.exceptions()) == len(lines)

"""The machine that runs NVIDIA's code on a CPU: small programs of known results, counts, and what it must refuse.

That it knows what nvcc writes is checked where there is an nvcc: the static gate compares results with F.conv2d.
"""

import struct

import numpy as np
import pytest

from tools.cuda_gate.sass.machine import Launch, Machine
from tools.cuda_gate.sass.text import parse

COPY = """
 /*0000*/ S2R R0, SR_TID.X ;
 /*0010*/ MOV R2, c[0x0][0x210] ;
 /*0020*/ MOV R3, c[0x0][0x214] ;
 /*0030*/ IMAD.WIDE.U32 R4, R0, 0x4, R2 ;
"""


def run(
    program: str, threads: int = 32, elements: int = 64, data: np.ndarray | None = None
) -> tuple[Machine, np.ndarray]:
    """One block on a buffer of 32-bit elements, whose address is the only parameter."""
    memory = np.arange(64, dtype=np.uint32)
    launch = Launch(
        (1, 1, 1), (threads, 1, 1), 1024, struct.pack("<Q", memory.ctypes.data),
        [(memory.ctypes.data, memory.view(np.uint8))],
    )  # fmt: skip
    machine = Machine(*parse(program), launch, np.array([0]))
    machine.run()
    return machine, memory


def line(instruction: str) -> np.ndarray:
    """Lane 0's R6 after one instruction, with R0 the lane, R1 = 0xfffffff0, R2:R3 = 2^32 - 1 : 1."""
    program = f"""
 /*0000*/ S2R R0, SR_TID.X ;
 /*0010*/ MOV R1, 0xfffffff0 ;
 /*0020*/ MOV R2, 0xffffffff ;
 /*0030*/ MOV R3, 0x1 ;
 /*0040*/ ISETP.LT.U32.AND P0, PT, R0, 0x10, PT ;
 /*0050*/ {instruction} ;
 /*0060*/ EXIT ;
"""
    return run(program)[0].registers[6]


# By hand, for lanes 0 and 20.
@pytest.mark.parametrize(
    "instruction, first, twentieth",
    [
        ("IADD3 R6, R0, -0x1, RZ", 0xFFFFFFFF, 19),
        ("IADD3.X R6, R0, R3, RZ, P0, !PT", 2, 21),
        ("IMAD R6, R0, 0x3, R3", 1, 61),
        ("IMAD.HI.U32 R6, R2, R2, RZ", 0xFFFFFFFE, 0xFFFFFFFE),
        ("LEA R6, R0, R3, 0x2", 1, 81),
        ("LEA R6, P1, -R0, R3, 0x2", 1, 0xFFFFFFB1),
        ("LEA R6, P1, -R0, R3, 0x2 ;\n /*0058*/ SEL R6, R3, RZ, P1", 1, 0),
        ("LEA.HI.X.SX32 R6, R1, RZ, 0x1, P0", 0x0, 0xFFFFFFFF),
        ("LOP3.LUT R6, R0, 0x5, RZ, 0xc0, !PT", 0, 4),
        ("SHF.R.S32.HI R6, RZ, 0x2, R1", 0xFFFFFFFC, 0xFFFFFFFC),
        ("SHF.R.U64 R6, R2, 0x4, R3", 0x1FFFFFFF, 0x1FFFFFFF),
        ("SEL R6, R0, 0x7, P0", 0, 7),
        ("IMNMX R6, R1, R0, PT", 0xFFFFFFF0, 0xFFFFFFF0),
        ("IMNMX.U32 R6, R1, R0, PT", 0, 20),
        ("VIMNMX.U32 R6, PT, PT, R0, 0x7, !PT", 7, 20),
        ("PRMT R6, R1, 0x9910, RZ", 0xFFFFFFF0, 0xFFFFFFF0),
        ("P2R R6, PR, RZ, 0x1", 1, 0),
        ("FFMA R6, R2, RZ, 1.5", 0x7FC00000, 0x7FC00000),
        ("FADD R6, RZ, -2", 0xC0000000, 0xC0000000),
        ("HADD2.F32 R6, -RZ, R3.H0_H0", 0x33800000, 0x33800000),
        ("F2FP.BF16.F32.PACK_AB R6, RZ, R1", 0x7FFF, 0x7FFF),
        ("@P0 MOV R6, 0x9", 9, 0),
        ("SHFL.BFLY PT, R6, R0, 0x3, 0x1f", 3, 23),
        ("SHFL.DOWN PT, R6, R0, 0x10, 0x1f", 16, 20),
    ],
)
def test_instructions(instruction, first, twentieth):
    result = line(instruction)
    got = int(result[0]), int(result[20])
    if instruction.startswith(("FFMA", "F2FP")):  # NaN has many bits
        assert got[0] & 0x7F80 or got[0] & 0x7F800000 == 0x7F800000
    else:
        assert got == (first, twentieth)


def test_a_program_computes_and_is_counted():
    """Lanes below 8 go round a loop four times, the others never; whoever waits for them issues nothing."""
    program = f"""{COPY}
 /*0040*/ MOV R6, RZ ;
 /*0050*/ ISETP.GE.U32.AND P0, PT, R0, 0x8, PT ;
 /*0060*/ @P0 BRA `(.L_x_1) ;
.L_x_0:
 /*0070*/ IADD3 R6, R6, 0x1, RZ ;
 /*0080*/ ISETP.NE.AND P1, PT, R6, 0x4, PT ;
 /*0090*/ @P1 BRA `(.L_x_0) ;
.L_x_1:
 /*00a0*/ STG.E desc[UR4][R4.64], R6 ;
 /*00b0*/ EXIT ;
"""
    machine, memory = run(program, threads=64)
    assert memory.tolist() == [4] * 8 + [0] * 56
    assert machine.issued.tolist() == [2] * 7 + [4, 4, 4] + [2, 2]


def test_a_barrier_waits_for_all_warps():
    program = """
 /*0000*/ S2R R0, SR_TID.X ;
 /*0010*/ LEA R1, R0, 0x400, 0x2 ;
 /*0020*/ STS [R1], R0 ;
 /*0030*/ BAR.SYNC.DEFER_BLOCKING 0x0 ;
 /*0040*/ IADD3 R2, -R0, 0x3f, RZ ;
 /*0050*/ LEA R3, R2, 0x400, 0x2 ;
 /*0060*/ LDS R6, [R3] ;
 /*0070*/ EXIT ;
"""
    assert run(program, threads=64)[0].registers[6].tolist() == list(range(63, -1, -1))


@pytest.mark.parametrize(
    "instruction, error",
    [
        ("LDG.E R6, desc[UR4][R4.64+0x84]", "beyond the end of a buffer"),
        ("STG.E desc[UR4][R4.64+-0x4], R0", "not in any buffer"),
        ("LDG.E.64 R6, desc[UR4][R4.64]", "not aligned to 8 bytes"),
        ("LDS R6, [R0+0x1000]", "beyond shared memory"),
    ],
)
def test_what_is_not_the_kernels_is_an_error(instruction, error):
    with pytest.raises(IndexError, match=error):
        run(f"{COPY} /*0040*/ {instruction} ;\n /*0050*/ EXIT ;\n")


def test_an_unknown_instruction_is_an_error():
    with pytest.raises(NotImplementedError, match="FROB"):
        run(" /*0000*/ FROB R1, R2 ;\n /*0010*/ EXIT ;\n")

"""Pass: chains of convolutions and what stands between them become calls of the block operator.

First every call that is a step becomes a block by itself (elementary.py). Blocks then take what stands before them
(prologues.py) and what follows them (epilogues.py), squeeze-and-excite becomes one step (squeeze_excite.py), neighbours
become one (merge.py), and weights are packed (finish.py). Blocks are for inference on a CPU in float32, bfloat16 and
float16.
"""

import torch

from ..program import Program
from .draft import Drafts
from .elementary import draft_steps
from .epilogues import take_epilogues
from .finish import finish
from .merge import merge, restore_others
from .prologues import draft_layer_norms, take_prologues
from .squeeze_excite import draft_squeeze_excite
from .strides import refresh, restore_strides, wanted_strides
from .views import read_sizes_of_inputs, simplify


@torch.no_grad()
def form_blocks(program: Program) -> None:
    wanted = wanted_strides(program)
    drafts = Drafts(program)
    read_sizes_of_inputs(program)
    draft_steps(program, drafts)
    if not drafts.of:
        return
    program.eliminate_dead_code()
    simplify(program)
    take_prologues(program, drafts)
    draft_layer_norms(program, drafts)
    simplify(program)
    take_epilogues(program, drafts)
    simplify(program)
    draft_squeeze_excite(program, drafts)
    merge(program, drafts)
    restore_others(drafts)
    finish(program, drafts)
    refresh(program)
    restore_strides(program, wanted)

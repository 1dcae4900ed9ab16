"""Bytes that a launch moves, from the addresses of every load and store that the machine code executes.

The model of the caches in one sentence: a block reads each 32-byte sector from memory once, however often its threads
load it, and each store of a warp writes the sectors that it touches.

So what neighbouring blocks both load counts for each of them, stores that do not fill sectors count as if they did, and
nothing is gained from what another block has left in the L2 cache.
"""

from dataclasses import dataclass, field

import numpy as np

from tools.cuda_gate.sass.machine import WARP, Access

SECTOR = 32


@dataclass
class Replay:
    """Give ``add`` to a Machine as on_access. ``lanes_of_a_block`` is the machine's ``padded``."""

    lanes_of_a_block: int
    loads: list[np.ndarray] = field(default_factory=list)  # (block, sector) as one number each
    written: int = 0

    def add(self, access: Access) -> None:
        sectors = access.addresses // SECTOR
        if access.store:
            # Accesses are aligned to their width, which a sector holds whole.
            self.written += len(np.unique(_pairs(access.lanes // WARP, sectors)))
        else:
            self.loads.append(np.unique(_pairs(access.lanes // self.lanes_of_a_block, sectors)))

    @property
    def read(self) -> int:
        """Sectors."""
        return len(np.unique(np.concatenate(self.loads))) if self.loads else 0


def _pairs(group: np.ndarray, sectors: np.ndarray) -> np.ndarray:
    """One number for each pair: an address has 48 bits, so a sector has 43, and groups are few."""
    return (group.astype(np.uint64) << np.uint64(43)) | sectors.astype(np.uint64)

"""The arithmetic of the model, by hand."""

import pytest

from tools.cuda_gate.roofline import LAUNCH, Device, Row, Work, bounds, seconds, table

DEVICE = Device("sm_90", 10, 1e9, 128, 1e12, "made up")


@pytest.mark.parametrize(
    "changed, resource, expected",
    [
        ({"bytes": 1e9}, "bytes", 1e-3),
        ({"instructions": 4e7}, "issue", 1e-3),  # four of each multiprocessor in a nanosecond
        ({"multiply_adds": 128e7}, "multiply-adds", 1e-3),
        ({"shared_bytes": 128e7}, "shared memory", 1e-3),
        ({"instructions": 4e7, "blocks": 5}, "issue", 2e-3),  # half of the multiprocessors are idle
        ({"bytes": 1e9, "blocks": 1}, "bytes", 1e-3),
    ],
)
def test_each_resource_bounds(changed, resource, expected):
    work = Work(0, 0, 0, 0, 1000, 2)._replace(**changed)
    assert bounds(work, DEVICE)[resource] == pytest.approx(expected)
    assert seconds(work, DEVICE) == pytest.approx(expected + 2 * LAUNCH)


def test_the_table_has_a_line_for_each_layer_and_operation():
    rows = [
        Row("layer", "forward", "kernel", device, 10.0, "bytes", 85.0)
        for device in ("A100", "H100", "B200", "RTX 4090")
    ]
    assert table(rows).splitlines()[2:] == [f"| layer | forward |{' 10.0 us (bytes), 8.5x |' * 4}"]

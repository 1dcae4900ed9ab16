"""The emulator is not blind: each kind of bug planted in ``planted.cu`` is found, and the sound kernels are not."""

import pytest

from tests.cuda.build import extension
from tests.cuda.harness import ORDERS, checker, set_order
from tests.kernels.days import today_or_full

# Who finds a bug for sure, in every order of threads. The others see some of it: a race is wrong in one order only.
FOUND_BY = {
    "global_bounds": "asan",
    "shared_bounds": "asan",
    "missing_syncthreads": "tsan",
    "divergent_barrier": "plain",
    "missing_sync_before_warp_sums": "tsan",
    "add_between_blocks": "tsan",
    "missing_async_wait": "plain",
    "misaligned_vector": "plain",
    "misaligned_shared_vector": "plain",
    "write_after_read": "tsan",
    "missing_syncwarp": "tsan",
    "last_block_without_fence": "tsan",
}
# Under a sanitizer, whose build takes more than a minute: one order of threads a day.
ORDER_OF_TODAY = [today_or_full(order, part=i, of=len(ORDERS)) for i, order in enumerate(ORDERS)]
MESSAGE = {"asan": "AddressSanitizer: heap-buffer-overflow", "tsan": "ThreadSanitizer: data race"}


def test_every_planted_bug_is_listed():
    assert sorted(extension().planted_bugs()) == sorted(FOUND_BY)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bug", [bug for bug, finder in FOUND_BY.items() if finder == "plain"])
def test_emulator_finds(bug, order):
    set_order(order)
    assert extension().planted(bug) is not None


@pytest.mark.parametrize("order", ORDER_OF_TODAY)
@pytest.mark.parametrize("bug", [bug for bug, finder in FOUND_BY.items() if finder != "plain"])
def test_sanitizer_finds(bug, order):
    found = checker(FOUND_BY[bug], order, "planted", bug)
    assert found.returncode != 0 and MESSAGE[FOUND_BY[bug]] in found.stdout, found.stdout


@pytest.mark.parametrize("bug", ["missing_syncthreads", "missing_sync_before_warp_sums", "missing_syncwarp"])
def test_some_order_of_threads_shows_a_race(bug):
    """Without any sanitizer: memory that nobody has written yet is NaN."""
    shown = []
    for order in ORDERS:
        set_order(order)
        shown.append(extension().planted(bug))
    assert "wrong results" in shown


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bug", FOUND_BY)
def test_sound_kernels_pass(bug, order):
    set_order(order)
    assert extension().planted(f"sound_{bug}") is None


@pytest.mark.parametrize("order", ORDER_OF_TODAY)
@pytest.mark.parametrize("build", ["asan", "tsan"])
@pytest.mark.parametrize("bug", FOUND_BY)
def test_sound_kernels_are_clean(bug, build, order):
    found = checker(build, order, "planted", f"sound_{bug}")
    assert found.returncode == 0, found.stdout

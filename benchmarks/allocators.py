"""``python -m benchmarks.allocators``: what memory that is asked for anew costs, and what settings spare of it.

A training step and an inference of MobileNetV2, plain and ours, each in a process of its own for every setting. The
settings take turns; the median over the rounds counts. One whose library is not installed is left out with a word.
"""

import argparse
import ctypes.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from torch_dwconv import convert, fuse
from torch_dwconv.bench import report, runner
from torch_dwconv.bench.models.find import example_mobilenet_v2
from torch_dwconv.bench.progress import progress_bar

from . import command

PROGRAM = "python -m benchmarks.allocators"
KINDS = ("training step, plain", "training step, blocks", "inference, plain", "inference, fused")
_KEEP = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=268435456"
_JEMALLOC = "background_thread:true,metadata_thp:auto,dirty_decay_ms:-1,muzzy_decay_ms:-1"


class Setting(NamedTuple):
    """Variables of the environment; and a library that is preloaded: its name for ctypes.util, and its package."""

    variables: dict[str, str]
    library: tuple[str, str] | None = None


SETTINGS = {
    "none": Setting({}),
    "glibc keeps its pages": Setting({"GLIBC_TUNABLES": _KEEP}),
    "the same, huge pages": Setting({"GLIBC_TUNABLES": f"{_KEEP}:glibc.malloc.hugetlb=1"}),
    "PyTorch's huge pages": Setting({"THP_MEM_ALLOC_ENABLE": "1"}),
    "jemalloc keeps its pages": Setting({"MALLOC_CONF": _JEMALLOC}, ("jemalloc", "libjemalloc2")),
    "tcmalloc": Setting({}, ("tcmalloc_minimal", "libtcmalloc-minimal4")),
}


def environment_of(setting: Setting) -> dict[str, str] | None:
    """What a process gets; None if the library is not there."""
    if setting.library is None:
        return os.environ | setting.variables
    found = ctypes.util.find_library(setting.library[0])
    return os.environ | setting.variables | {"LD_PRELOAD": found} if found else None


def call_of(kind: str, batch: int, size: int) -> Callable[[], object]:
    """What is timed, on one batch of random images."""
    torch.manual_seed(0)
    model = example_mobilenet_v2(num_classes=10, dropout=0.0)
    images, labels = torch.randn(batch, 3, size, size), torch.randint(10, (batch,))
    if kind.startswith("inference"):
        model.eval()
        if kind.endswith("fused"):
            model = fuse(model, images)

        def infer() -> object:
            with torch.inference_mode():
                return model(images)

        return infer
    if kind.endswith("blocks"):
        convert(model, blocks=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def step() -> object:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        return optimizer.step()

    return step


def time_here(kind: str, batch: int, size: int, samples: int) -> dict[str, float]:
    """Of this process: the median time of a call in seconds, its page faults, the peak of the memory in bytes."""
    call = call_of(kind, batch, size)
    call()
    call()
    times, faults = [], resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(samples):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": statistics.median(times),
        "faults": (usage.ru_minflt - faults) / samples,
        "peak_bytes": usage.ru_maxrss * 1024,
    }


def measured(options: argparse.Namespace, line: str) -> dict:
    """Every kind under every setting, in turns."""
    results: dict[str, Any] = runner.new_results(line, "allocators")
    results["batch"], results["size"] = options.batch, options.image_size
    environments = {name: environment_of(setting) for name, setting in SETTINGS.items()}
    for name, environment in environments.items():
        setting = SETTINGS[name]
        if environment is None and setting.library:
            print(f"{name}: left out (not installed; Debian: apt install {setting.library[1]})", file=sys.stderr)
    work = [
        (kind, name, environment)
        for _ in range(options.rounds)
        for kind in KINDS
        for name, environment in environments.items()
        if environment is not None
    ]
    shape = (str(options.batch), str(options.image_size), str(options.samples))
    for kind, name, environment in progress_bar(work, unit="process"):
        child = [sys.executable, "-m", "benchmarks.allocators", "--child", kind, *shape]
        said = subprocess.run(child, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        results["allocators"].append({"kind": kind, "setting": name, **json.loads(said.splitlines()[-1])})
    return results


def document(results: dict, style: str) -> Iterator[str]:
    """The report, part by part; `style` as for `report.render`."""
    yield "\n".join(report.machine_lines(results["machine"])) + "\n"
    yield "Settings:\n"
    for name, setting in SETTINGS.items():
        words = [f"{variable}={value}" for variable, value in setting.variables.items()]
        if setting.library:
            words.append(f"LD_PRELOAD=lib{setting.library[0]}.so (Debian: {setting.library[1]})")
        if words:
            yield f"- {name}: `{' '.join(words)}`"
    yield ""
    rows = []
    for (kind,), group in report.groups_of(results["allocators"], "kind").items():
        of_setting = {name: medians(some) for (name,), some in report.groups_of(group, "setting").items()}
        for name, values in of_setting.items():
            times = of_setting["none"]["seconds"] / values["seconds"]
            rows.append(
                [
                    kind,
                    name,
                    f"{values['seconds'] * 1e3:.0f}",
                    f"{times:.2f}",
                    f"{values['faults']:,.0f}",
                    f"{values['peak_bytes'] / 1e6:,.0f}",
                ]
            )
    title = (
        f"MobileNetV2, batch {results['batch']} at {results['size']} x {results['size']}, by settings of the allocator"
    )
    headers = ["call", "setting", "ms", "times as fast", "page faults a call", "peak MB of the process"]
    yield report.render((title, headers, rows), style)


def medians(records: list[dict]) -> dict[str, float]:
    """Of each number, over the rounds."""
    return {name: statistics.median(r[name] for r in records) for name in ("seconds", "faults", "peak_bytes")}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=str(__doc__).partition("\n\n")[2])
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="default: 16")
    parser.add_argument("--image-size", type=int, default=224, metavar="N", help="default: 224")
    parser.add_argument("--samples", type=int, default=5, metavar="N", help="calls in a process; default: 5")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="processes for each time; default: 3")
    command.add_files(parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--child"]:
        kind, batch, size, samples = arguments[1:]
        print(json.dumps(time_here(kind, int(batch), int(size), int(samples))))
        return 0
    command.report(parser().parse_args(arguments), measured, document, [*PROGRAM.split(), *arguments])
    return 0


if __name__ == "__main__":
    sys.exit(main())

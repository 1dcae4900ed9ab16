"""A process that times one build of the library: ``python -m benchmarks.compare.worker FOLDER``, for processes.py.

`FOLDER` is a checkout with its own torch_dwconv/lib. The library is that checkout's and the benchmark is this one's, so
that the same code calls both builds. That works as long as the benchmark uses nothing but public names of the library.

Pickled messages arrive on standard input, and each is answered on standard output:

    ("prepare", subject, threads, min_seconds)  ->  (repeats, whether it is short enough to be warmed up, digest)
    ("sample", repeats, warm)                   ->  seconds for one call
    ("result",)                                 ->  the result in float64, None if there is none
"""

import hashlib
import importlib.util
import os
import pickle
import sys
from pathlib import Path

import torch

BENCH = Path(__file__).parents[2] / "torch_dwconv" / "bench"


def load(folder: Path) -> None:
    """Imports torch_dwconv from `folder`, and puts this checkout's benchmark in the place of its own."""
    sys.path.insert(0, str(folder))
    import torch_dwconv

    sys.path.remove(str(folder))
    assert Path(torch_dwconv.__file__).is_relative_to(folder), f"{torch_dwconv.__file__} is not in {folder}"
    name = "torch_dwconv.bench"
    spec = importlib.util.spec_from_file_location(name, BENCH / "__init__.py", submodule_search_locations=[str(BENCH)])
    assert spec is not None and spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def run_of(subject: tuple):
    """The `timing.Run` of ("cell", Cell, mode) or ("tiny", call, step)."""
    from benchmarks import overhead
    from torch_dwconv.bench.contestants import ours
    from torch_dwconv.bench.problem import Problem
    from torch_dwconv.bench.timing import Run

    kind, what, how = subject
    if kind == "cell":
        return ours.runs(Problem(what))[how]
    torch.manual_seed(0)
    return Run(overhead.step_of(how, *overhead.calls()[what]["ours"]))


def result_of(run) -> torch.Tensor | None:
    returned = run.call()
    return None if returned is None else run.tensor(returned).detach().contiguous()


def digest_of(result: torch.Tensor | None) -> str:
    """The same for the same bits."""
    if result is None:
        return ""
    return hashlib.blake2b(result.view(torch.uint8).numpy().tobytes(), digest_size=8).hexdigest()


def serve(receive, send) -> None:
    """Answers messages until there are no more."""
    from torch_dwconv.bench.timing import LONG_CALL_S, no_garbage_collection, repeats_of, sample

    run = None
    while True:
        try:
            what, *arguments = receive()
        except EOFError:
            return
        if what == "prepare":
            subject, threads, min_seconds = arguments
            torch.set_num_threads(threads)
            run = None  # its memory is free before the next takes some
            # Tiny calls set their own gradient mode, cells need none.
            torch.set_grad_enabled(subject[0] == "tiny")
            run = run_of(subject)
            digest = digest_of(result_of(run))
            with no_garbage_collection():
                repeats, seconds = repeats_of(run, min_seconds)
            send((repeats, seconds / repeats <= LONG_CALL_S, digest))
        elif what == "sample":
            assert run is not None
            with no_garbage_collection():
                send(sample(run, *arguments))
        else:
            result = result_of(run)
            send(None if result is None else result.double().numpy())


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between

    def send(answer) -> None:
        pickle.dump(answer, answers)
        answers.flush()

    load(Path(sys.argv[1]).resolve())
    serve(lambda: pickle.load(sys.stdin.buffer), send)


if __name__ == "__main__":
    main()

"""Trains MobileNetV2 with torch_dwconv's depthwise layers, by default on the digits that come with scikit-learn.

    python examples/train_mobilenetv2.py                              8 epochs, about two minutes on 2 cores
    python examples/train_mobilenetv2.py --compare                    and the same with nn.Conv2d and nn.BatchNorm2d
    python examples/train_mobilenetv2.py --data PATH --size 64        your images: a folder with a sub-folder per class
    python examples/train_mobilenetv2.py --resume                     go on where Ctrl-C or a crash ended the last run
    torchrun --nproc-per-node 2 examples/train_mobilenetv2.py         one run on two processes

Checkpoint and curves go to --output (runs/mobilenetv2).
"""

import argparse
import os
import resource
import signal
import statistics
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from image_data import DataError, ImageData, load
from torch import nn
from training import Batches, CheckpointError, Config, Learner, accuracy, load_checkpoint, save_checkpoint, seed_of

from torch_dwconv.bench.progress import progress_bar

# Set by torchrun.
RANK, WORLD_SIZE = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

COMPARED_STEPS = 25
WARM_UP_STEPS = 3
SECOND_INTERRUPT_AFTER = 2.0  # seconds


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", metavar="PATH", help="image folder or IDX files (MNIST, Fashion-MNIST); default: the digits")
    add("--size", type=int, default=32, help="images are resized to this many pixels (default 32)")
    add("--limit", type=int, metavar="N", help="use at most N training and N test images")
    add("--epochs", type=int, default=8)
    add("--batch-size", type=int, default=32, help="images in a step, over all processes (default 32)")
    add("--learning-rate", type=float, default=0.04, help="the highest of the one-cycle schedule (default 0.04)")
    add("--weight-decay", type=float, default=1e-4)
    add("--width", type=float, default=0.5, help="width multiplier (default 0.5)")
    add("--seed", type=int, default=0)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    add("--channels-last", action="store_true", help="train in torch.channels_last")
    add("--amp", choices=["bfloat16"], help="train under autocast")
    add("--compile", action="store_true", help="train through torch.compile")
    add("--compare", action="store_true", help="time steps against the same model with nn.Conv2d, then train")
    add("--resume", action="store_true", help="continue from the checkpoint in --output")
    add("--output", metavar="DIR", type=Path, default=Path("runs/mobilenetv2"))
    arguments = parser.parse_args(argv)
    for name in ("size", "epochs", "batch_size", "limit"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this torch finds no CUDA device")
    if arguments.compare and WORLD_SIZE > 1:
        parser.error("--compare takes one process; run it without torchrun")
    return arguments


class Interrupt:
    """Turns Ctrl-C or SIGTERM into a flag that is read between steps, so that training stops where it can go on.

    torchrun passes a Ctrl-C on that its workers have had already; one that comes later ends the program at once.
    """

    def __init__(self):
        self.time: float | None = None
        self._previous = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def _ask(self, number, frame) -> None:
        now = time.monotonic()
        self.time = self.time or now
        if now - self.time > SECOND_INTERRUPT_AFTER:
            raise KeyboardInterrupt

    def restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def train(learner: Learner, batches: Batches, data: ImageData, output: Path, resume: bool) -> dict | None:
    """Trains to the last epoch and returns the final progress, or None if it was interrupted.

    Progress is ``{"epoch", "step", "running", "losses", "epochs"}``: the next step to do, the sums of the epoch so far
    (loss, right answers, images), the loss of every step, and a row of results per finished epoch.
    """
    config, path = learner.config, output / "checkpoint.pt"
    progress = {"epoch": 0, "step": 0, "running": [0.0, 0, 0], "losses": [], "epochs": []}
    if resume:
        state = load_checkpoint(path, config)
        learner.restore(state["learner"])
        progress = state["progress"]
    interrupt = Interrupt()
    try:
        while progress["epoch"] < config.epochs:
            finished = train_epoch(learner, batches, progress, interrupt)
            if finished:
                finish_epoch(learner, batches, data, progress)
            if RANK == 0:
                save_checkpoint(path, {"learner": learner.state(), "progress": progress}, config)
            if not finished:
                return None
    finally:
        interrupt.restore()
    return progress


def train_epoch(learner: Learner, batches: Batches, progress: dict, interrupt: Interrupt) -> bool:
    """Does the steps that are left of an epoch. Returns False if it was interrupted."""
    epoch, first = progress["epoch"], progress["step"]
    order = batches.order(epoch)
    description = f"epoch {epoch + 1}/{learner.config.epochs}"
    stopped = False
    start, images_seen = time.perf_counter(), 0
    with progress_bar(total=batches.steps, initial=first, desc=description, unit="step", disable=RANK != 0) as bar:
        for step in range(first, batches.steps):
            images, labels = batches.training(order, epoch, step)
            loss, right = learner.step(images, labels, seed_of(learner.config, epoch, step, stream=1 + RANK))
            sums = [loss * len(labels), right, len(labels), interrupt.time is not None]
            if WORLD_SIZE > 1:  # one reduction joins the ranks' statistics and has all stop after the same step
                reduced = torch.tensor(sums, dtype=torch.float64, device=learner.config.device)
                dist.all_reduce(reduced)
                sums = reduced.tolist()
            loss_sum, right, count, stopped = sums
            progress["step"] = step + 1
            progress["losses"].append(loss_sum / count)
            running = progress["running"]
            running[:] = running[0] + loss_sum, running[1] + right, running[2] + count
            images_seen += count
            rate = images_seen / (time.perf_counter() - start)
            loss, share = running[0] / running[2], running[1] / running[2]
            bar.set_postfix_str(f"loss {loss:.3f}, accuracy {share:.1%}, {rate:.0f} images/s")
            bar.update()
            if stopped:
                return False
    return True


def finish_epoch(learner: Learner, batches: Batches, data: ImageData, progress: dict) -> None:
    """Tests the model and closes the epoch's row of results; only rank 0's are kept."""
    loss_sum, right, count = progress["running"]
    row = {"loss": loss_sum / count, "accuracy": right / count}
    if RANK == 0:
        row["test_accuracy"] = accuracy(*learner.logits(batches.testing(data.test)))
        print(f"epoch {progress['epoch'] + 1}: test accuracy {row['test_accuracy']:.2%}", flush=True)
    progress["epochs"].append(row)
    progress.update(epoch=progress["epoch"] + 1, step=0, running=[0.0, 0, 0])


def compare_steps(config: Config, batches: Batches) -> None:
    """Trains the model in three forms in turn, a step each, and prints the medians."""
    learners = {
        "with blocks": Learner(config, batches.steps),
        "DepthwiseConv2d": Learner(config, batches.steps, blocks=False),
        "nn.Conv2d": Learner(config, batches.steps, depthwise=nn.Conv2d, blocks=False),
    }
    times = {name: [] for name in learners}
    first_loss = {}
    order = batches.order(epoch=0)
    total = min(WARM_UP_STEPS + COMPARED_STEPS, config.epochs * batches.steps)
    for step in progress_bar(range(total), desc="comparing", unit="step", leave=False):
        images, labels = batches.training(order, 0, step % batches.steps)
        for name, learner in learners.items():
            start = time.perf_counter()
            loss, _ = learner.step(images, labels, seed=step)  # reads the loss, so a GPU has finished too
            times[name].append(time.perf_counter() - start)
            first_loss.setdefault(name, loss)
    kept = slice(min(WARM_UP_STEPS, total - 1), None)
    medians = {name: statistics.median(values[kept]) for name, values in times.items()}
    for name, median in medians.items():
        saved = learners[name].saved_bytes(images) / 2**20
        line = f"{name:16} first-step loss {first_loss[name]:.6f}, median step {median * 1000:.1f} ms"
        print(f"{line}, {saved:.0f} MiB kept for the backward pass")
    for name in ("DepthwiseConv2d", "with blocks"):
        print(f"nn.Conv2d takes {medians['nn.Conv2d'] / medians[name]:.2f}x the time of {name}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    print(f"peak memory of the process, with the three models: {peak:.0f} MiB")


def compare_trained(learner: Learner, batches: Batches, data: ImageData) -> None:
    """Loads the trained weights into the model with nn.Conv2d and prints how far the two models' logits differ."""
    plain = Learner(learner.config, batches.steps, depthwise=nn.Conv2d, blocks=False)
    plain.model.load_state_dict(learner.model.state_dict())
    ours, labels = learner.logits(batches.testing(data.test))
    theirs, _ = plain.logits(batches.testing(data.test))
    difference = (ours - theirs).abs().max().item()
    print(f"The trained weights with nn.Conv2d: test accuracy {accuracy(theirs, labels):.2%}, ", end="")
    print(f"logits differ by at most {difference:.1e}")


def save_curves(progress: dict, steps: int, path: Path) -> None:
    """Draws the loss of every step and the accuracies of every epoch into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot([(index + 1) / steps for index in range(len(progress["losses"]))], progress["losses"], linewidth=0.8)
    left.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    epochs = range(1, len(progress["epochs"]) + 1)
    for key, label in (("accuracy", "training"), ("test_accuracy", "test")):
        right.plot(epochs, [100 * row[key] for row in progress["epochs"]], marker="o", label=label)
    right.set(xlabel="epoch", ylabel="accuracy (%)", ylim=(None, 100.5))
    right.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def run(arguments: argparse.Namespace) -> int:
    data = load(arguments.data, arguments.size)
    data = data.limited(arguments.limit) if arguments.limit else data
    settings = {name: value for name, value in vars(arguments).items() if name not in ("compare", "resume", "output")}
    config = Config(**settings, classes=data.classes, world_size=WORLD_SIZE)
    if len(data.train) < config.batch_size or config.batch_size < 2 * WORLD_SIZE or len(data.test) == 0:
        raise DataError(
            f"{len(data.train)} training and {len(data.test)} test images are too few for --batch-size "
            f"{config.batch_size} on {WORLD_SIZE} process(es): a batch needs two images per process."
        )
    batches = Batches(data.train, config, RANK)
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.compare:
        compare_steps(config, batches)
    learner = Learner(config, batches.steps)
    progress = train(learner, batches, data, arguments.output, arguments.resume)
    if RANK != 0:
        return 0
    if progress is None:
        print(f"Stopped; --resume goes on from {arguments.output / 'checkpoint.pt'}.")
        return 128 + signal.SIGINT
    save_curves(progress, batches.steps, arguments.output / "curves.png")
    if arguments.compare:
        compare_trained(learner, batches, data)
    print(f"Test accuracy {progress['epochs'][-1]['test_accuracy']:.2%} after {config.epochs} epochs.")
    print(f"Checkpoint and curves are in {arguments.output}.")
    return 0


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    if WORLD_SIZE > 1:
        dist.init_process_group("nccl" if arguments.device == "cuda" else "gloo")
    if arguments.device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    try:
        return run(arguments)
    except (DataError, CheckpointError) as error:
        print(f"train_mobilenetv2.py: {error}", file=sys.stderr)
        return 2
    finally:
        if WORLD_SIZE > 1:
            dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())

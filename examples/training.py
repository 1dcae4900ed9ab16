"""What train_mobilenetv2.py is made of: batches, a learner, checkpoints.

Every random choice follows from (seed, epoch, step): the order of the images, their distortions and dropout. So a
checkpoint needs no generator states, and a run continued from any step gives the same result, to the last bit, as one
that never stopped.
"""

import contextlib
import os
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from image_data import Split
from mobilenetv2 import MobileNetV2
from torch import nn

from torch_dwconv import DepthwiseConv2d, convert

LABEL_SMOOTHING = 0.1
CHECKPOINT_FORMAT = 1


class CheckpointError(Exception):
    """A checkpoint that is missing, broken or of another run. The text is one sentence for the user."""


@dataclass(frozen=True)
class Config:
    """Everything that the result of a run depends on, apart from the images themselves."""

    data: str | None
    classes: tuple[str, ...]
    limit: int | None
    size: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    width: float
    seed: int
    channels_last: bool
    amp: str | None
    compile: bool
    device: str
    world_size: int


def seed_of(config: Config, epoch: int, step: int, stream: int) -> int:
    """A seed of its own for every step and purpose: stream 0 is the data's, 1 + rank is dropout's on that rank."""
    return ((config.seed * 1009 + epoch) * 1_000_003 + step) * 4099 + stream


class Batches:
    """Distorted, normalised training batches and normalised test batches of one rank."""

    def __init__(self, train: Split, config: Config, rank: int):
        self.train, self.config, self.rank = train, config, rank
        self.steps = len(train) // config.batch_size  # the rest, less than a batch, sits out the epoch
        pixels = train.images.float().div(255)
        self.mean, self.std = pixels.mean().item(), pixels.std().item()

    def _generator(self, epoch: int, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed_of(self.config, epoch, step, stream=0))

    def order(self, epoch: int) -> torch.Tensor:
        """The order of the images in an epoch, int64 (N,)."""
        return torch.randperm(len(self.train), generator=self._generator(epoch, self.steps))

    def training(self, order: torch.Tensor, epoch: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """This rank's share of a step's images, (n, 3, H, W) float32, and labels, (n,)."""
        size = self.config.batch_size
        rows = order[step * size : (step + 1) * size]
        images = _distort(self._normalise(self.train.images[rows]), self._generator(epoch, step))
        share = slice(self.rank, None, self.config.world_size)
        return self._place(images[share]), self.train.labels[rows][share].to(self.config.device)

    def testing(self, split: Split, size: int = 256):
        """All batches of a split in order, undistorted."""
        for images, labels in zip(split.images.split(size), split.labels.split(size), strict=True):
            yield self._place(self._normalise(images)), labels.to(self.config.device)

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().div(255).sub(self.mean).div(self.std)

    def _place(self, images: torch.Tensor) -> torch.Tensor:
        """Grey becomes three equal channels; the result is on the device in the memory format asked for."""
        layout = torch.channels_last if self.config.channels_last else torch.contiguous_format
        return images.to(self.config.device).expand(-1, 3, -1, -1).contiguous(memory_format=layout)


def _distort(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turns each image by up to 10 degrees, scales it by up to 10 % and shifts it by up to 10 % of its size."""
    count = len(images)
    angle, scale, dx, dy = torch.rand(4, count, generator=generator).mul(2).sub(1)
    angle, scale = angle * (10 * torch.pi / 180), 1 + 0.1 * scale
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cos, -sin, 0.2 * dx, sin, cos, 0.2 * dy])  # half the image is 1, so 10 % of it is 0.2
    grid = F.affine_grid(rows.T.reshape(count, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


class Learner:
    """A model with its optimiser and learning-rate schedule.

    ``model`` is what checkpoints hold and tests use; ``runner`` is the same model wrapped for training.
    """

    def __init__(self, config: Config, steps: int, depthwise: type[nn.Conv2d] = DepthwiseConv2d, blocks: bool = True):
        """`depthwise`: the class of the depthwise layers. `blocks`: BatchNorm computes the activation behind it."""
        self.config = config
        torch.manual_seed(config.seed)
        small = config.size <= 64
        self.model = MobileNetV2(len(config.classes), config.width, small_images=small, depthwise=depthwise)
        if blocks:
            convert(self.model, blocks=True)
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.model.to(config.device, memory_format=layout)
        self.runner: nn.Module = self.model
        if config.world_size > 1:
            self.runner = nn.parallel.DistributedDataParallel(self.runner)
        if config.compile:
            self.runner = torch.compile(self.runner)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), config.learning_rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, config.learning_rate, config.epochs * steps, pct_start=0.25
        )

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.config.amp is None:
            return contextlib.nullcontext()
        return torch.autocast(self.config.device, getattr(torch, self.config.amp))

    def step(self, images: torch.Tensor, labels: torch.Tensor, seed: int) -> tuple[float, int]:
        """One update. Returns the loss before it, averaged over the batch, and how many images were classified right.

        ``seed`` decides dropout.
        """
        torch.manual_seed(seed)
        self.runner.train()
        with self._autocast():
            logits = self.runner(images)
            loss = F.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        return loss.item(), int((logits.argmax(1) == labels).sum())

    def saved_bytes(self, images: torch.Tensor) -> int:
        """What the forward pass of a step keeps for the backward pass, beyond parameters and images."""
        known = {tensor.untyped_storage().data_ptr() for tensor in (*self.model.parameters(), images)}
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        self.runner.train()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), self._autocast():
            output = self.runner(images)  # its graph holds what was kept, so no address comes twice
        del output
        return sum(kept.values())

    @torch.inference_mode()
    def logits(self, batches) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, classes) and labels (N,) of all batches, on the CPU, in evaluation mode."""
        self.model.eval()
        with self._autocast():
            results = [(self.model(images).float().cpu(), labels.cpu()) for images, labels in batches]
        return torch.cat([logits for logits, _ in results]), torch.cat([labels for _, labels in results])

    def state(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def restore(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return (logits.argmax(1) == labels).double().mean().item()


def save_checkpoint(path: Path, state: dict, config: Config) -> None:
    """Writes a checkpoint so that at every moment ``path`` is the old one or the new one, whole."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save({"format": CHECKPOINT_FORMAT, "config": asdict(config), **state}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load_checkpoint(path: Path, config: Config) -> dict:
    """Reads a checkpoint made under the same ``config``. Only data are read, never code (``weights_only``).

    Raises:
        CheckpointError: there is none, it cannot be read, or it belongs to a run with other settings.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no checkpoint {path} to resume from.") from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint; remove it or name another --output.") from error
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise CheckpointError(f"{path} is not a checkpoint of this program; name another --output.")
    for name, value in asdict(config).items():
        if state["config"].get(name) != value:
            raise CheckpointError(f"{path} was made with {name} = {state['config'].get(name)}, not {value}.")
    return state

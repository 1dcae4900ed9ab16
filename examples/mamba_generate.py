"""Trains a small Mamba on the reference documentation that comes with Python, letter by letter, and has it write.

    python examples/mamba_generate.py                            one to two minutes on 2 cores
    python examples/mamba_generate.py --text FILE                your own text
    python examples/mamba_generate.py --steps 20 --letters 50    a quick look

The curve of the loss goes to --output (runs/mamba). Training and generation are timed with the causal convolution of
torch_dwconv, and with the same in PyTorch's functions.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from mamba import CONVOLUTIONS, Mamba
from torch.nn import functional as F

from torch_dwconv.bench.progress import progress_bar

TIMED_STEPS = 5
HELD_OUT = 0.05  # of the text, at its end


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--text", metavar="FILE", type=Path, help="text in UTF-8 (default: the topics of Python's help)")
    add("--steps", type=int, default=300, help="training steps (default 300)")
    add("--batch-size", type=int, default=16, help="sequences in a step (default 16)")
    add("--length", type=int, default=128, help="letters in a sequence (default 128)")
    add("--width", type=int, default=128, help="a multiple of 4 (default 128)")
    add("--layers", type=int, default=3)
    add("--learning-rate", type=float, default=3e-3)
    add("--prompt", default="The ", help="what the generated text begins with (default 'The ')")
    add("--letters", type=int, default=300, help="letters to generate (default 300)")
    add("--temperature", type=float, default=0.7)
    add("--seed", type=int, default=0)
    add("--output", metavar="DIR", type=Path, default=Path("runs/mamba"))
    arguments = parser.parse_args(argv)
    for name in ("steps", "batch_size", "length", "width", "layers", "letters"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(arguments, name)}")
    if arguments.width % 4:
        parser.error(f"--width must be a multiple of 4, got {arguments.width}")
    if not arguments.prompt or arguments.temperature <= 0:
        parser.error("--prompt must not be empty, and --temperature must be positive")
    return arguments


class Text:
    """Letters as numbers. Those that are rare, or come in a prompt only, are all one: the number 0."""

    def __init__(self, text: str, most: int = 127) -> None:
        count = {letter: text.count(letter) for letter in sorted(set(text))}
        self.letters = "\ufffd" + "".join(sorted(sorted(count, key=lambda letter: -count[letter])[:most]))
        self.numbers = {letter: number for number, letter in enumerate(self.letters)}
        tokens = self.encode(text)
        held_out = int(len(tokens) * HELD_OUT)
        self.train, self.test = tokens[: len(tokens) - held_out], tokens[len(tokens) - held_out :]

    def encode(self, text: str) -> torch.Tensor:
        return torch.tensor([self.numbers.get(letter, 0) for letter in text])

    def decode(self, tokens: list[int]) -> str:
        return "".join(self.letters[token] for token in tokens)


def documentation() -> str:
    """What Python's help() says about the language: some 700,000 letters."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def batch(tokens: torch.Tensor, count: int, length: int, generator: torch.Generator) -> torch.Tensor:
    """(count, length + 1): stretches from anywhere in the text."""
    begins = torch.randint(len(tokens) - length, (count, 1), generator=generator)
    return tokens[begins + torch.arange(length + 1)]


def loss_of(model: Mamba, stretches: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(model(stretches[:, :-1]).flatten(0, 1), stretches[:, 1:].flatten())


def train(model: Mamba, text: Text, arguments: argparse.Namespace) -> list[float]:
    """The loss of every step."""
    generator = torch.Generator().manual_seed(arguments.seed)
    optimizer = torch.optim.AdamW(model.parameters(), arguments.learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.learning_rate, total_steps=arguments.steps + 1, pct_start=0.1
    )
    losses = []
    with progress_bar(range(arguments.steps), desc="training", unit="step") as bar:
        for _ in bar:
            loss = loss_of(model, batch(text.train, arguments.batch_size, arguments.length, generator))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            bar.set_postfix_str(f"loss {statistics.fmean(losses[-20:]):.3f}")
    return losses


@torch.inference_mode()
def held_out_loss(model: Mamba, text: Text, arguments: argparse.Namespace) -> float:
    generator = torch.Generator().manual_seed(arguments.seed)
    return loss_of(model, batch(text.test, 4 * arguments.batch_size, arguments.length, generator)).item()


@torch.inference_mode()
def generate(model: Mamba, prompt: torch.Tensor, arguments: argparse.Namespace) -> tuple[list[int], float]:
    """The tokens after the prompt, and how many were made in a second."""
    generator = torch.Generator().manual_seed(arguments.seed)
    states = model.new_states(batch=1)
    for token in prompt:
        logits = model.step(token[None], states)
    made = []
    begin = time.perf_counter()
    for _ in range(arguments.letters):
        chances = F.softmax(logits[0] / arguments.temperature, 0)
        token = torch.multinomial(chances, 1, generator=generator)
        made.append(token.item())
        logits = model.step(token, states)
    return made, arguments.letters / (time.perf_counter() - begin)


def compare_training(model: Mamba, stretches: torch.Tensor) -> dict[str, float]:
    """Seconds for the loss and its gradients by each convolution, in turn; medians."""
    times: dict[str, list[float]] = {name: [] for name in CONVOLUTIONS}
    for _ in range(1 + TIMED_STEPS):
        for name, found in times.items():
            begin = time.perf_counter()
            loss_of(model.convolve_by(name), stretches).backward()
            found.append(time.perf_counter() - begin)
    model.zero_grad(set_to_none=True)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def save_curve(losses: list[float], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(range(1, len(losses) + 1), losses, linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss (nats a letter)", ylim=(0, None))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    try:
        text = Text(documentation() if arguments.text is None else arguments.text.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        print(f"mamba_generate.py: {arguments.text} cannot be read: {error}", file=sys.stderr)
        return 2
    if len(text.test) <= arguments.length:
        print(f"mamba_generate.py: the text is too short for --length {arguments.length}", file=sys.stderr)
        return 2
    torch.manual_seed(arguments.seed)
    model = Mamba(len(text.letters), arguments.width, arguments.layers, heads=4 if arguments.width % 8 else 8)
    arguments.output.mkdir(parents=True, exist_ok=True)

    stretches = batch(text.train, arguments.batch_size, arguments.length, torch.Generator().manual_seed(arguments.seed))
    times = compare_training(model, stretches)
    losses = train(model.convolve_by("torch_dwconv"), text, arguments)
    save_curve(losses, arguments.output / "loss.png")
    print(f"Loss on text that it has not seen: {held_out_loss(model, text, arguments):.3f} nats a letter.")

    prompt, written, rates = text.encode(arguments.prompt), {}, dict.fromkeys(CONVOLUTIONS, 0.0)
    for name in [*CONVOLUTIONS] * 2:  # in turn, since the first of all is slower
        written[name], rate = generate(model.convolve_by(name), prompt, arguments)
        rates[name] = max(rates[name], rate)
    print(f"\n{arguments.prompt}{text.decode(written['torch_dwconv'])}\n")
    for name in CONVOLUTIONS:
        print(f"{name:12} {rates[name]:6.0f} letters/s generated, {times[name] * 1000:6.1f} ms for a step's gradients")
    same = "the same" if written["torch_dwconv"] == written["PyTorch"] else "not the same"
    print(f"Both wrote {same} text. The curve of the loss is in {arguments.output}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

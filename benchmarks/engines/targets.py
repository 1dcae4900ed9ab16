"""What is wanted: time of the best other engine / ours, for each model, dtype, and column (batch and threads)."""

from collections.abc import Iterable
from typing import NamedTuple

from torch_dwconv.bench.report import peak_share

OURS = "fused"
OTHERS = ("onnxruntime", "openvino")
PYTORCH = ("plain", "plain-nhwc", "compiled-plain", "frozen-plain")


class Column(NamedTuple):
    """A batch size and a number of threads."""

    batch: int
    threads: int

    @property
    def name(self) -> str:
        return f"{self.batch}x{self.threads}"

    @property
    def words(self) -> str:
        return f"batch {self.batch}, {self.threads} thread{'s' * (self.threads > 1)}"


COLUMNS = {column.name: column for column in (Column(1, 1), Column(16, 1), Column(1, 2))}

# In the order of COLUMNS. In f32 by kind of model, in bf16 for every model.
_SEPARABLE, _SQUEEZED, _LARGE = (1.3, 1.25, 1.2), (1.2, 1.15, 1.1), (1.15, 1.1, 1.1)
_BF16 = (1.15, 1.1, 1.05)
_F32 = {
    "mobilenet_v2": _SEPARABLE,
    "mnasnet1_0": _SEPARABLE,
    "mobilenet_v1": _SEPARABLE,
    "mobilenetv3_large_100": _SQUEEZED,
    "efficientnet_b0": _SQUEEZED,
    "mobilenetv4_conv_medium": _SQUEEZED,
    "convnext_tiny": _LARGE,
    "inception_next_tiny": _LARGE,
}
_PEAK = {("mobilenet_v2", "f32"): dict(zip(COLUMNS, (0.70, 0.65), strict=False))}
MODELS = tuple(_F32)
CAPPED_MEAN = 1.1  # over all models, where TORCH_DWCONV_ISA caps the instruction set
CAPPABLE = ("openvino",)  # of OTHERS: whose instruction set can be capped alike
PYTORCH_EACH, PYTORCH_MEAN = 1.0, 1.5


def ratio_wanted(model: str, dtype: str, column: str) -> float | None:
    """None if nothing is."""
    wanted = {"f32": _F32.get(model), "bf16": _BF16 if model in _F32 else None}.get(dtype)
    return dict(zip(COLUMNS, wanted, strict=True)).get(column) if wanted else None


def share_wanted(model: str, dtype: str, column: str) -> float | None:
    """Of the FMA peak; None if nothing is."""
    return _PEAK.get((model, dtype), {}).get(column)


def fastest_of(record: dict, forms: Iterable[str]) -> tuple[str, float] | None:
    """The form that took least time, and that time; None if none of them was timed."""
    times = {form: record["times"][form]["median"] for form in forms if form in record["times"]}
    return min(times.items(), key=lambda item: item[1]) if times else None


def ratio(record: dict, others: Iterable[str]) -> float | None:
    """Time of the fastest of `others` / ours; above 1 ours is faster. None if one is missing."""
    best, ours = fastest_of(record, others), fastest_of(record, (OURS,))
    return best[1] / ours[1] if best and ours else None


def share(record: dict) -> float | None:
    """Our share of the FMA peak; None if we were not timed."""
    return peak_share(record, OURS) if OURS in record["times"] else None

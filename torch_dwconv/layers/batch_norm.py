"""BatchNormAct2d: an nn.BatchNorm2d with the activation behind it."""

import torch
from torch import Tensor, nn

from ..functional.batch_norm import batch_norm_act
from ..functional.rules import check_activation
from .tracing import leaf


class BatchNormAct2d(nn.BatchNorm2d):
    """An nn.BatchNorm2d, followed by an activation, trained and run in one pass (`batch_norm_act`).

    Arguments, attributes, state_dict and running statistics are nn.BatchNorm2d's.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype: as in nn.BatchNorm2d.
        activation (str, optional): None or one of relu, relu6, hardswish, silu, gelu, gelu_tanh.

    Shape:
        input and output (N, C, H, W); weight, bias, running_mean and running_var (C,).

    Raises:
        ValueError: there is no such activation, or an input that is not 4-D or has one value per channel in training.

    >>> layer = BatchNormAct2d(32, activation="relu6")
    >>> layer(torch.randn(8, 32, 14, 14)).shape
    torch.Size([8, 32, 14, 14])
    """

    activation: str | None = None  # of the class, so that a converted nn.BatchNorm2d has it too

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device=None,
        dtype=None,
        *,
        activation: str | None = None,
    ) -> None:
        check_activation(activation)
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        self.activation = activation

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self._normalised(input, self.activation)
        else:
            return leaf(self, self._compute, input) if isinstance(input, torch.fx.Proxy) else self._compute(input)

    def _compute(self, input: Tensor) -> Tensor:
        return self._normalised(input, self.activation)

    def _normalised(self, input: Tensor, activation: str | None) -> Tensor:
        """nn.BatchNorm2d.forward, with `batch_norm_act` in the place of F.batch_norm."""
        self._check_input_dim(input)
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats:  # noqa: SIM102  (TorchScript learns what is None from an if)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
                if self.momentum is None:
                    momentum = 1.0 / float(self.num_batches_tracked)
        of_batch = self.training or (self.running_mean is None and self.running_var is None)
        moves = not self.training or self.track_running_stats
        return batch_norm_act(
            input,
            self.running_mean if moves else None,
            self.running_var if moves else None,
            self.weight,
            self.bias,
            of_batch,
            momentum,
            self.eps,
            activation,
        )

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", activation={self.activation}" if self.activation else "")

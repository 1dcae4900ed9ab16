"""Run by torchrun on two processes: a model under fully_shard against the same model by itself."""

import copy

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from torch_dwconv import DepthwiseConv2d, convert


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (2,))
    alone = nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 16, 3, 2, 1, groups=8),
        nn.ReLU(),
        nn.Conv2d(16, 16, 5, groups=16),
        nn.Flatten(),
    )
    model = convert(copy.deepcopy(alone))
    assert sum(isinstance(layer, DepthwiseConv2d) for layer in model) == 2
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)

    images = torch.randn(4, 3, 14, 15)
    mine = images.chunk(2)[mesh.get_rank()]
    model(mine).square().mean().backward()
    alone(images).square().mean().backward()
    for (name, parameter), right in zip(model.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad.full_tensor(), right.grad, msg=name)
    print("gradients match", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()

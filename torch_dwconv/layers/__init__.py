"""The layers: drop-ins for those of torch.nn."""

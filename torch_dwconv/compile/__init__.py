"""The operators in graphs: how Inductor lowers them, and what they are in PyTorch's own operators."""

"""The functions, and what they are made of: the rules for arguments, who computes a call, and their TorchScript."""

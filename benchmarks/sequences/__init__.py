"""Causal 1-D convolutions and other layers of sequences, beside their targets."""

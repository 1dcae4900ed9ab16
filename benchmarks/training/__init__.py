"""Training steps of whole models, and BatchNorm with its activation, against PyTorch and beside the targets.

`__main__.py` is the command line; `targets.py` says what is timed and what is wanted of it; `norms.py` times BatchNorm
with its activation; `memory.py` finds the peak of a step; `tables.py` shows what was measured; `curves.py` draws what
the loss does over many steps.
"""

"""Whole models against other engines and PyTorch's best forms: ``python -m benchmarks.engines``.

models.py      which models, and one that no package has
targets.py     what is wanted of each: how many times as fast as the best other engine, and of the FMA peak
tables.py      the results beside that
__main__.py    the command line
"""

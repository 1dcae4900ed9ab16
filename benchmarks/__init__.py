"""More than ``python -m torch_dwconv.bench`` has, by the same runner: ``python -m benchmarks``. See README.md here.

Not installed with the package: it is for those who change the library, or who check the figures that it publishes.
"""

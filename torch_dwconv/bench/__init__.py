"""The benchmark: ``python -m torch_dwconv.bench`` times layers and models against PyTorch and the machine's limit.

layers.py       what is timed: rows of layers.csv, of a user's CSV, or of the command line
problem.py      one cell of the result: its tensors, bytes and FLOPs
timing.py       contestants in turns, medians and quartiles
limit.py        what the machine cannot beat, measured beside the contestants
contestants/    this library and PyTorch; each says what it refuses
cells.py        checks, then times, a cell
models/         whole models: plain, converted, fused, compiled
suite.py, cli.py, runner.py   what may be asked for, what is, and the run
progress.py     bars, where there is a terminal
machine.py      what must be said beside any figure
report.py, plots.py   tables, JSON and PNGs

benchmarks/ in a checkout adds contestants and presets to the same runner (`suite.Suite`).
"""

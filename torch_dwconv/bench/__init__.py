"""The benchmark: ``python -m torch_dwconv.bench`` times every operation against other engines and the machine's limit.

layers.py       what is timed: rows of layers.csv, of a user's CSV, or of the command line
problem.py      one cell of the result: its tensors, bytes and FLOPs
timing.py       contestants in turns, medians and quartiles
limit.py        what the machine cannot beat, measured beside the contestants
contestants/    this library and the others; each says what it refuses
run.py          checks, then times, every cell
models.py       whole models, plain against converted
machine.py      what must be said beside any figure
report.py, plots.py   tables, JSON and PNGs
"""

"""Our CUDA kernels against PyTorch's own and cuDNN's, timed on the GPU: ``python -m benchmarks.cuda``.

A cell is an operation of a layer in a dtype and a memory format. Its contestants are ours (``ours``), PyTorch with
cuDNN turned off (``native``) and, where PyTorch would call it, cuDNN told to try its algorithms (``cudnn``, without
TF32). Results are compared before they are timed. Each contestant's calls are captured in a CUDA graph, so that
Python's time is not in them, over so many copies of the operands and results that none is in the L2 cache when it is
read or written. Contestants take turns; a time is the median of CUDA events. The copy that bandwidth is compared with
is measured in each process.

There is a process for each dtype and memory format. What a cell gives is a line of JSON, written before the next
begins, so that a fault, a hang or the end of the time costs no more than the cell under way
(``benchmarks/items.py``). A second run into the same folder goes on where the first stopped.
"""

CONTESTANTS = ("ours", "native", "cudnn")

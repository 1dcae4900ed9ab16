"""Two builds of the library against each other: ``python -m benchmarks.compare BEFORE [AFTER]``. See __main__.py."""

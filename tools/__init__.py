"""For those who change kernels: nothing here is needed to build, test or use the library."""

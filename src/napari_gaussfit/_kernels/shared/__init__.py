"""Arithmetic that the kernels of both backends are of, compiled for each."""

"""The backend for CPUs: Numba, in threads."""

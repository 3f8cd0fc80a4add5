"""The backend for NVIDIA GPUs: numba-cuda."""

"""Stacks with a known truth, errors against it, and what only pages and tests use."""

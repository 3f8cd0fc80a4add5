"""Fits and pictures in a thread or a process of their own, for a window that must not wait."""

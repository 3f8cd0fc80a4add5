"""Fitting: where Gaussians begin, the steps that move them, and when a fit ends."""

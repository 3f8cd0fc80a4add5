"""Pictures of a fit: projections side by side, its history, its Gaussians."""

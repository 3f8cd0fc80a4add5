"""What a fit is of: Gaussians, cameras, projections, and what a fit leaves behind."""

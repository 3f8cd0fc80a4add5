"""How good a fit is, and what there is to know of each of its Gaussians."""

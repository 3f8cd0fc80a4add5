"""What is in a stack: spots, and cells and neurites in the field of a fit."""

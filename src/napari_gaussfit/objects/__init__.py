"""What is in a stack: cells and neurites, found in the field of a fit."""

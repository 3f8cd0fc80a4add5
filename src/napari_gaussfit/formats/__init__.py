"""Files of fits and of what is rendered of them, one module a format; registry is their table."""

"""The panel: a part of it each, and the widgets that they are of."""

"""Template tags of the whole project."""

"""Tools for every room, which import nothing of the package but one another."""

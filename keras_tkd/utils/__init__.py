"""What every room may use, and which knows none of them: graph, files, numbers, progress."""

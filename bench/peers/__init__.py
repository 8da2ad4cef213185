"""The same work done by others, for comparison in the same run."""

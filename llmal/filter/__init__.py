"""filter: which annotations may teach the student."""

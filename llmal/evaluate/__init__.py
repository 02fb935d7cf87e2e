"""evaluate: what the labels and the student are worth, measured on the reserved sample."""

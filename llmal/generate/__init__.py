"""Generate: new texts where the student is weak, written by a model and judged before they teach."""

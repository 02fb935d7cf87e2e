"""train: a small student learns from the accepted annotations and from people's answers."""

"""Labels a stream: cheap students answer first, the language model last, and all learn from its answers."""

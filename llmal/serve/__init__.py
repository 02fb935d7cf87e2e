"""serve: the classifier behind HTTP; what it may not answer goes to a language model, then to people."""

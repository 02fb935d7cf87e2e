"""route: who answers each item - the student, the language model, or a person."""

"""export: a folder with the classifier, its card, and what it was measured to be worth."""

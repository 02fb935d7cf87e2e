"""Prompts: a file becomes a frame that each item's text is put into, and answers become labels."""

"""Shipped for tests and demonstrations: a language-model server that answers as told and counts all."""

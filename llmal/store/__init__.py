"""The run folder: facts in SQLite, arrays beside it, one writer at a time."""

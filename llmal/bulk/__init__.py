"""Labels a file of any size with an exported classifier: row in, row out, in flat memory."""

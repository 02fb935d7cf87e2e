"""desk: the local page on which people label what waits for them, one key a label."""

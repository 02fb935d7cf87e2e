"""embed: a vector for every text, computed once and kept in the run folder."""

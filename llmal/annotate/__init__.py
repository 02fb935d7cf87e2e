"""annotate: a label, a distribution and a confidence for each pick, from a language model or anything else."""

"""annotate: a label, a distribution and a confidence for each pick, by a language model or anything else."""

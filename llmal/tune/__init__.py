"""Better prompts from people's answers: optimisers, each judged on answers that none of them saw."""

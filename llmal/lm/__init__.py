"""Talking to language models: one door, one retry loop, one ledger; nothing here knows labels."""

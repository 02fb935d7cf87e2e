"""select: which items to ask about next, before any label exists and after."""

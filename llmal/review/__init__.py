"""review: people's part - what waits for them goes out as a table, their answers come back as facts."""

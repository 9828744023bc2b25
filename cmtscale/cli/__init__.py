"""One thin file per command; nothing heavy is imported at module level."""

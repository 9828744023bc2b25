"""What an architecture is and what it costs: pure arithmetic, no torch."""

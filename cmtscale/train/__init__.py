"""What a training is, and the one loop that does it."""

"""The parts of `benchmarks/gpu.py`: what is measured on a card, how, and what counts as good."""

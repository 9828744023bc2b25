"""Simulated searches over architectures whose true losses are known: see `../forecast.py`."""

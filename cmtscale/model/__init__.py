"""The CMT network in torch: blocks, build, weights, measured cost."""

"""Scale, count, search and train CMT vision networks."""

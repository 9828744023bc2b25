"""A trained model as others use it."""

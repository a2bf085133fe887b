"""Training and planting of the reference models."""

"""Who says which emotion a generated text expresses."""

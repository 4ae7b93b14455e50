"""A precompute-then-train image captioner, as a DVC pipeline."""

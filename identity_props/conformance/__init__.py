"""Which laws apply to a stack, and what came of them."""

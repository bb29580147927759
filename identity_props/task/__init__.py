"""What is to be learned, the input itself, and what is exactly known of learning it."""

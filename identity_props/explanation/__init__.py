"""Where a network's error comes from, part by part, and what to do."""

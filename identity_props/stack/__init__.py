"""What a user can swap: the parts that train, the loop around them, ranks, and a guard on each step."""

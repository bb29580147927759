"""A zoo of published optimizers: each a recurrence in float64, written from its paper alone."""

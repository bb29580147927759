"""Who learns the identity? Models, training and claims with a known right answer."""

__version__ = "0.1.0"

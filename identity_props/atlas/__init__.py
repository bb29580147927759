"""The atlas: which corner of all knobs at once learns the identity, kept cell by cell, and read again."""

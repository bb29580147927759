"""``python -m identity_props`` is ``identity-props``."""

import sys

from identity_props.cli import main

if __name__ == "__main__":  # training processes import this module again
    sys.exit(main())

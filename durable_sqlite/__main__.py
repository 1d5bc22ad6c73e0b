"""`python -m durable_sqlite`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

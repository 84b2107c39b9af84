"""`python -m hetsp_ext` is the command `hetsp`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

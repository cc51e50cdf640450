"""`python -m tests.emulator`."""

import sys

from .cli import main

sys.exit(main())

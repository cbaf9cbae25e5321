"""`python -m fmct.demo`: the same as `fmct demo`."""

import sys

from fmct.console.command import main
from fmct.demo import COMMAND

sys.exit(main(COMMAND))

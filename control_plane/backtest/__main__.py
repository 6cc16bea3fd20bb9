"""`python -m control_plane.backtest FOLDER`; see `job`."""

import sys

from control_plane.backtest.job import main

sys.exit(main(sys.argv[1:]))

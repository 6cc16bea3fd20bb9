"""`python -m control_plane`: one control plane, until SIGINT or SIGTERM."""

import sys

from control_plane.bootstrap import main

if __name__ == "__main__":
    sys.exit(main())

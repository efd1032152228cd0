"""`python -m ops.bench.webtorrent`."""

import sys

from ops.bench.webtorrent.app import main

if __name__ == "__main__":
    sys.exit(main())

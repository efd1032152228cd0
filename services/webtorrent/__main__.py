"""`python -m services.webtorrent`: links over the BitTorrent peer wire, of one node."""

import sys

from services.webtorrent.app import app
from shared.process.run import run

if __name__ == "__main__":
    sys.exit(run("webtorrent", app))

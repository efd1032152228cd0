import sys

from services.webtorrent.app import app
from shared.process.run import run

sys.exit(run("webtorrent", app))

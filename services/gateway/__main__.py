"""`python -m services.gateway`: the HTTP API and the page of one node."""

import sys

from services.gateway.app import app
from shared.process.run import run

if __name__ == "__main__":
    sys.exit(run("gateway", app))

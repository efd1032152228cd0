import sys

from services.broadcast.app import app
from shared.process.run import run

sys.exit(run("broadcast", app, mesh=True))

import sys

from services.manager.app import app
from shared.process.run import run

sys.exit(run("manager", app))

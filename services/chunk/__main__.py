"""`python -m services.chunk`"""

import sys

from services.chunk.app import app
from shared.process.run import run

sys.exit(run("chunk", app))

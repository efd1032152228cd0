import sys

from services.webrtc.app import app
from shared.process.run import run

sys.exit(run("webrtc", app))

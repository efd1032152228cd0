"""Limits of the transfers that are asked for at one gateway."""

from __future__ import annotations

MIB = 1024 * 1024

MAX_TRANSFERS = 500
"""Kept for views, ended ones too; the oldest goes first."""

MAX_RUNNING_TRANSFERS = 64
"""Asked for here and not ended yet. Each put holds a spool file of up to gateway.max_upload_bytes."""

MAX_UPLOADS = 8
"""Read from sockets at a time: a disk gets no faster by more."""

MAX_WAITING_UPLOADS = 64
"""Waiting for their turn to be read; each holds a connection and no more."""

UPLOAD_STALL_S = 60.0
"""An upload of which nothing comes for so long is given up."""

SILENT_AFTER_S = 3.0
"""A transfer that works is reported every second (services/chunk/progress.py); a stopped chunk service is replaced by
another, or started again, in about this time."""

STALLED_AFTER_S = 60.0
"""A transfer of which nothing was heard for so long has failed: its bus, or every chunk instance, is away. As long as a
fetch waits for its peers."""

TRANSFER_DEADLINE_S = 3600.0
"""From being asked for to its end: 1 TiB at 300 MB/s."""

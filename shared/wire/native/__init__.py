"""Frames between swarmbridge nodes, inside a sealed link. Sans-IO.

Source: swarmbridge's own format; it carries the neutral chunk messages with cipher bytes raw, where the
browser dialects carry JSON and base64.
"""

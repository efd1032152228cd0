"""What swarmbridge's processes agree on: envelopes, subjects, wire formats, and the code every service needs.

Services import this package and never one another (tests/architecture enforces it).
"""

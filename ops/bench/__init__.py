"""Benchmarks: what the system costs and how fast it reacts, measured on this machine. See README.md."""

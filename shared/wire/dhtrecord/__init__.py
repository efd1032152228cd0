"""The sealed BEP 44 record by which members of a mesh find a node (docs/trust.md)."""

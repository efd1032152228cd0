"""BinaryPack: the packing of PeerJS data channels."""

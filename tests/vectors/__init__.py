"""The test vectors of the protocol notes, section 12, over sockets."""

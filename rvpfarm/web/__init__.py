"""HTTP/1.1 on the hot sockets."""

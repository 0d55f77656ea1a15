"""HTTP/1.1 and the farm link on the hot sockets."""

"""The farm link: calls between farm members, many in flight on one connection, each executed once."""

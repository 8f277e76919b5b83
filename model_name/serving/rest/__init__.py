"""REST: HTTP connections, routes and messages."""

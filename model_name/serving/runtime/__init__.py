"""Process runtime: memory, logging, TLS certificates and signatures of files. Imports no other part of the server."""

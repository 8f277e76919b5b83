"""Parts of the command line that are large enough for a room of their own."""

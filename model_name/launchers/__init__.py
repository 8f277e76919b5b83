"""Where a job runs, and on what."""

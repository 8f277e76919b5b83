"""What `benchmarks.serving` needs: the model, the servers, the requests that they understand, and the load."""

"""gRPC: the services of the Open Inference Protocol and of the health checking protocol."""

"""gRPC: the inference service of the Open Inference Protocol and the health checking service."""

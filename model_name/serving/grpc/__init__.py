"""gRPC: the inference service of the Open Inference Protocol, the health checking service, and reflection."""

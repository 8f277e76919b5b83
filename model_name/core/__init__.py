"""What a model is: pure, without files, network or services."""

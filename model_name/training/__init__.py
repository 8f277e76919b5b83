"""Training: fitting, exporting and compressing a model; the parts that the training job is made of."""

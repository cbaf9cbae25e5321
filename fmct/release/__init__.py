"""What is handed to others: the model card, the gate before a release, ONNX, the hub."""

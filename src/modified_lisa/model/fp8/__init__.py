"""The language model's linear layers in fp8, for GPUs that multiply fp8 matrices."""

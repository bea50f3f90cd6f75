"""What a model costs: memory and time, measured in one way everywhere."""

"""What pruning each layer alone costs."""

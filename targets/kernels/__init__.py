"""What the kernels of several families of cores share."""

"""What leaves a network, and why: criteria, allocation, and the passes that remove."""

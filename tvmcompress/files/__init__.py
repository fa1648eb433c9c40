"""Writing files and folders: whole or not at all, and never over what somebody else has written."""

"""What guards the process that runs foreign code: layers of the kernel, limits, and who may talk to whom."""

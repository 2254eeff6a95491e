"""From records to machine code: loops around kernels, compiled once, kept on disk, and loaded when they are needed."""

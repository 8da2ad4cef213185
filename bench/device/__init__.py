"""Our kernels on a GPU, beside the peers and the limits of the same process: a file a subject."""

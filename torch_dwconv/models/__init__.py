"""Our layers in models: convert and revert, and fuse."""

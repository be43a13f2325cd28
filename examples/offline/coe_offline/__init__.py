"""What a composition needs on one machine without a model hub, a Redis or torch: plugins of `coe` (README.md)."""

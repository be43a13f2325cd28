"""Changes of experts.yaml that a running gateway takes."""

"""Files that start a composition elsewhere, rendered from its experts.yaml. Begin with deployment.py."""

"""Reading of a request: the ask without its wrapping, its features, and the doubt of stage 1. The pipeline and training
import it; it imports values and interfaces alone. Begin with `features.py`."""

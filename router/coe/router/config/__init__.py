"""The models of experts.yaml. Everything that reads a composition imports them; they import answer kinds, prices and
the base class of sections. Begin with `composition.py`, whose `CoeConfig` holds every section."""

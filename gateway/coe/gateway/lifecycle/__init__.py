"""Start, configuration change and stop of a gateway process and of what runs beside it.

Commands import it; it imports the application and the components of a gateway.
Begin with `composition.py`.
"""

"""The APIs beside chat completions, one file each: a request becomes a chat request, its answer is translated to
the API's own events. Routing, limits, the log and failover are those of a chat. Begin with `adapter.py`."""

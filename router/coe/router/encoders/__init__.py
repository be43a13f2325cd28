"""One file per kind; see router/plugins.py. A kind that calls another machine is in `fleet.encoders`."""

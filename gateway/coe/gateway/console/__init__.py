"""The console at `/console`: pages over the gateway's own API, with the rights of the key that logged in. Imported when
somebody first opens it. Begin with `app.py`."""

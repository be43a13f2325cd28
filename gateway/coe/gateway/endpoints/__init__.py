"""The gateway's own endpoints, one file each, on FastAPI. Chat completions are in gateway/chat/chat.py, without it."""

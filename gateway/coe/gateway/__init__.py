"""The OpenAI-compatible server: chats and other APIs, keys, batches, the console, and changes while it runs.

It may import every package but training and eval. Begin with `app.py` (the application), then `chat/chat.py` (a chat
from request to log row).
"""

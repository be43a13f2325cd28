"""A fake of vLLM's server: its command line, its endpoints and its memory, without a model.

`interpreter` makes it what `vllm.python` starts. Begin with `engine.py`; `server.py` is the HTTP.
`tests/contracts/test_vllm_servers.py` holds it to vLLM's CPU build. Sleep mode, which that build lacks, follows vLLM's
source and documentation; nobody has compared it with a GPU here.
"""

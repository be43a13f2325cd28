"""A fake of vLLM's server, for tests and rehearsals: its command line, its endpoints and its memory, without a model.

Chosen by `engine: fake_vllm` in experts.yaml and never by default. Begin with `engine.py`; `server.py` is the HTTP.
`tests/contracts/test_vllm_servers.py` holds it to vLLM's CPU build. Sleep mode, which that build lacks, follows vLLM's
source and documentation; nobody has compared it with a GPU here.
"""

"""LoRA experts: adapters trained on examples of one category, or merged of several, and admitted where they are surely
better. Begin with commands.py. Only causal_lm.py and adapter_fit.py touch torch."""

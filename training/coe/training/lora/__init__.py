"""LoRA experts: adapters trained on examples of one category, and admitted if they are surely better. Begin with
lora_commands.py. Only causal_lm.py, adapter_fit.py and dequantize.py import torch."""

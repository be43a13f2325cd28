"""SmolLM2-135M and five LoRA experts: what `make run` starts."""

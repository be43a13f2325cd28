"""Recipe of the embedded experts: one narrow LoRA adapter for each task on one small base."""

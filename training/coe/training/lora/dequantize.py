"""A GGUF model as a Hugging Face folder: `python -m coe.training.lora.dequantize --base-gguf FILE --out DIR`.

An adapter trained on the dequantised weights that are served, not on the original ones, learns around the quantisation.
"""

import argparse
from pathlib import Path


def dequantize(base_gguf: Path, out: Path) -> None:
    """Write model, tokenizer and chat template to `out`, weights in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = base_gguf.parent, base_gguf.name
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m coe.training.lora.dequantize", description=__doc__)
    parser.add_argument("--base-gguf", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    dequantize(options.base_gguf, options.out)


if __name__ == "__main__":
    main()

"""Load an exported model with one library, and compare it with the values that our own model computed.

    python interoperability_readers.py LIBRARY FOLDER REFERENCE.safetensors

This runs in an environment that contains the library. Prints one line of JSON: the largest absolute difference in each quantity.
See interoperability.py, which calls it.

The reference contains `tokens` [batch, time], `logits` [batch, time, vocabulary], `patterns` [layers, batch, heads, time, time], and
`ablated`: the logits without head 0 of the last layer. Its metadata lists texts with their log-likelihoods.
"""

import json
import sys
from collections.abc import Callable

import torch
from safetensors import safe_open
from torch import Tensor

Differences = dict[str, float]


class Reference:
    def __init__(self, path: str) -> None:
        with safe_open(path, "pt") as file:
            self.tokens, self.logits, self.patterns, self.ablated = (
                file.get_tensor(name) for name in ("tokens", "logits", "patterns", "ablated")
            )
            self.texts = json.loads(file.metadata()["texts"])
        self.layers = len(self.patterns)


def largest(theirs: Tensor, ours: Tensor) -> float:
    assert theirs.shape == ours.shape, (theirs.shape, ours.shape)
    return float((theirs - ours).abs().max())


def transformers(folder: str, reference: Reference) -> Differences:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    eager = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, attn_implementation="eager")
    patterns = torch.stack(eager(reference.tokens, output_attentions=True).attentions)
    eager.model.layers[-1].self_attn.o_proj.weight[:, : eager.config.head_dim] = 0
    return {
        "logits": largest(model(reference.tokens).logits, reference.logits),
        "patterns": largest(patterns, reference.patterns),
        "ablated": largest(eager(reference.tokens).logits, reference.ablated),
    }


def transformer_lens(folder: str, reference: Reference) -> Differences:
    from transformer_lens import __dict__ as names

    from repeat_study.export import transformer_lens as loaders

    # In version 4, the package no longer contains this name.
    load = loaders.hooked_transformer if "HookedTransformer" in names else loaders.transformer_bridge
    model = load(folder)
    logits, cache = model.run_with_cache(reference.tokens)
    patterns = torch.stack([cache[f"blocks.{layer}.attn.hook_pattern"] for layer in range(reference.layers)])

    def silence(z_bthk: Tensor, hook: object) -> Tensor:
        z_bthk[:, :, 0] = 0
        return z_bthk

    hooks = [(f"blocks.{reference.layers - 1}.attn.hook_z", silence)]
    return {
        "logits": largest(logits, reference.logits),
        "patterns": largest(patterns, reference.patterns),
        "ablated": largest(model.run_with_hooks(reference.tokens, fwd_hooks=hooks), reference.ablated),
    }


def nnsight(folder: str, reference: Reference) -> Differences:
    from nnsight import TransformersModel

    model = TransformersModel(
        folder, task="text-generation", trust_remote_code=True, attn_implementation="eager", dispatch=True
    )
    d_head, patterns = model.config.head_dim, []
    with model.trace(reference.tokens):
        for layer in range(reference.layers):
            patterns.append(model.model.layers[layer].self_attn.output[1].save())
        logits = model.output.logits.save()
    with model.trace(reference.tokens):
        model.model.layers[-1].self_attn.o_proj.input[..., :d_head] = 0
        ablated = model.output.logits.save()
    return {
        "logits": largest(logits, reference.logits),
        "patterns": largest(torch.stack(patterns), reference.patterns),
        "ablated": largest(ablated, reference.ablated),
    }


def lm_eval(folder: str, reference: Reference) -> Differences:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=folder, trust_remote_code=True, device="cpu", dtype="float32", batch_size=1)
    pairs = [(text["context"], text["continuation"]) for text in reference.texts]
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    likelihoods = [likelihood for likelihood, _ in model.loglikelihood(requests, disable_tqdm=True)]
    return {
        "log-likelihood per token": max(
            abs(theirs - text["log_likelihood"]) / text["tokens"]
            for theirs, text in zip(likelihoods, reference.texts, strict=True)
        )
    }


READERS: dict[str, Callable[[str, Reference], Differences]] = {
    "transformers": transformers,
    "transformer-lens": transformer_lens,
    "nnsight": nnsight,
    "lm-eval": lm_eval,
}


@torch.no_grad()
def main() -> None:
    library, folder, reference = sys.argv[1:]
    print(json.dumps(READERS[library](folder, Reference(reference))))


if __name__ == "__main__":
    main()

"""A decoder with a hand-built induction circuit, for which the correct value of every score is known."""

import torch

from repeat_study.config.model_sizes import Shape
from repeat_study.model.decoder import Decoder
from repeat_study.probes.heads import COPIES, NULL_SEQUENCES, SEQUENCES, HeadProbe

TOKENS, D, D_HEAD, CONTEXT, LENGTH = 32, 256, 64, 128, 25
# Dimensions of the residual stream. The sinusoids that are added to queries and keys are almost constant over the context beyond
# dimension 192, so these dimensions can store token identities.
POSITION, OUTPUT, TOKEN, BEFORE = slice(0, 64), slice(128, 160), slice(192, 224), slice(224, 256)


@torch.no_grad()
def induction_circuit() -> Decoder:
    """A decoder with one previous-token head and one induction head; the other heads do nothing.

    Head 0 of layer 0 attends to the previous token and copies it to BEFORE. Head 0 of layer 1 attends to the position whose
    BEFORE matches the current token, and predicts the token at that position.
    """
    model = Decoder(Shape(2, D, 2, D_HEAD, 0), TOKENS, CONTEXT, [0])
    for name, parameter in model.named_parameters():
        if not name.endswith("gain"):
            parameter.zero_()
    model.embedding[0, :, TOKEN] = torch.eye(TOKENS)
    model.unembedding.weight[0, OUTPUT] = torch.eye(TOKENS)
    before, induction = (block.attention for block in model.blocks)
    query, key = before.query_key.weight[0].chunk(2, dim=1)
    key[POSITION, :D_HEAD] = torch.eye(64)
    for pair in range(32):  # rotate the query back by one position
        angle = torch.tensor(-(10_000.0 ** (-2 * pair / D)))
        dims = slice(2 * pair, 2 * pair + 2)
        query[dims, dims] = 60 * torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    before.value.weight[0, TOKEN, :TOKENS] = torch.eye(TOKENS)
    before.out.weight[0, :TOKENS, BEFORE] = torch.eye(TOKENS) / D**0.5
    query, key = induction.query_key.weight[0].chunk(2, dim=1)
    query[TOKEN, :TOKENS] = torch.eye(TOKENS)
    key[BEFORE, :TOKENS] = 2 * torch.eye(TOKENS)
    induction.value.weight[0, TOKEN, :TOKENS] = torch.eye(TOKENS)
    induction.out.weight[0, :TOKENS, OUTPUT] = 2 * torch.eye(TOKENS)
    return model


def random_copies(generator: torch.Generator) -> HeadProbe:
    """The head probe for the vocabulary of `induction_circuit`. Every sequence starts with token 0."""

    def sample() -> torch.Tensor:
        return 1 + torch.randperm(TOKENS - 1, generator=generator)[:LENGTH]

    copied = [sample().repeat(COPIES) for _ in range(SEQUENCES)]
    fresh = [
        torch.cat([sample() for _ in range(COPIES)]) for _ in range(NULL_SEQUENCES)
    ]  # so small a vocabulary makes repeats unavoidable
    return HeadProbe(torch.nn.functional.pad(torch.stack(copied + fresh), (1, 0)), LENGTH)

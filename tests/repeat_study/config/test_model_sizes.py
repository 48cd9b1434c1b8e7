import pytest

from data_prep.errors import InputError
from repeat_study.config.model_sizes import C26_SIZES, Shape, shape_of
from repeat_study.model.decoder import Decoder


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("2L", 1.57e6), ("3L", 5.3e6), ("4L", 12.6e6), ("8L", 101e6), ("12L", 340e6), ("14L", 540e6), ("16L", 805e6)],
)
def test_the_h22_family_has_the_sizes_in_the_paper(name: str, parameters: float) -> None:
    shape = shape_of(name)
    assert shape.parameters_non_embedding == pytest.approx(parameters, rel=0.01)
    assert (shape.d_head, shape.d_model) == (64, 128 * shape.layers)


@pytest.mark.parametrize(("name", "total"), [(name, float(name[:-1]) * 1e6) for name in C26_SIZES])
def test_the_c26_family_is_named_after_its_total_parameters(name: str, total: float) -> None:
    assert shape_of(name).parameters_total(151_936) == pytest.approx(total, rel=0.01)


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        # A layer has 4·64² weights for queries, keys, values and output, and 64·256 + 256·64 weights in the MLP.
        ("2x64", 2 * (4 * 64**2 + 2 * 64 * 256)),
        ("2x64-attn", 2 * 4 * 64**2),
        ("2x8", 2 * (4 * 8**2 + 2 * 8 * 32)),
        ("3L-attn", 3 * 4 * 384**2),
        ("2x96-qwen", 2 * (4 * 96**2 + 3 * 96 * 256)),
        # The 32 heads of size 128 have 4·96·4096 weights. The MLP has three matrices of width 8/3·96 = 256.
        ("34M", 3 * (4 * 96 * 4096 + 3 * 96 * 256)),
    ],
)
def test_parameter_counts_match_a_hand_count_and_the_model(name: str, by_hand: int) -> None:
    shape, vocabulary = shape_of(name), 1000
    assert shape.parameters_non_embedding == by_hand
    model = Decoder(shape, vocabulary, context=16, seeds=[0])
    assert shape.parameters_total(vocabulary) == sum(parameter.numel() for parameter in model.parameters())
    matrices = sum(parameter.numel() for name, parameter in model.blocks.named_parameters() if "gain" not in name)
    assert shape.parameters_non_embedding == matrices


def test_a_qwen_mlp_has_as_many_weights_as_a_gelu_mlp() -> None:
    assert shape_of("2x96-qwen").parameters_non_embedding == shape_of("2x96").parameters_non_embedding


def test_flops_match_a_hand_count() -> None:
    # One layer, d_model 2, vocabulary 3, context 4. The matrix products of a forward pass cost 2 FLOPs per weight and token:
    # 2·(12·2² + 3·2) = 108. Attention has 1 + 2 + 3 + 4 = 10 pairs at 2·2·2 = 8 FLOPs each, or 20 FLOPs per token.
    assert Shape(1, 2, 1, 2, 8).training_flops_per_token(3, 4) == 3 * (108 + 20)
    # Without the MLP, the cost is lower by 2·2·2·8 = 64. With four heads, attention costs 4·(2·16 + 20) in total.
    assert Shape(1, 2, 1, 2, 0).training_flops_per_token(3, 4) == 3 * (108 - 64 + 20)
    assert Shape(1, 2, 4, 2, 0).training_flops_per_token(3, 4) == 3 * (4 * 16 * 2 + 2 * 3 * 2 + 4 * 20)


@pytest.mark.parametrize("name", ["", "L", "0L", "2x", "2x20", "x64", "2x64x3", "2l", "-2L", "2L-mlp", "35M", "2x64-"])
def test_unknown_names_are_errors(name: str) -> None:
    with pytest.raises(InputError, match="unknown model size"):
        shape_of(name)

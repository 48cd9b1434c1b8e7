import pytest

from data_prep.errors import InputError
from repeat_study.ladder import Shape, shape_of
from repeat_study.model import Decoder


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("2L", 1.57e6), ("3L", 5.3e6), ("4L", 12.6e6), ("8L", 101e6), ("12L", 340e6), ("14L", 540e6), ("16L", 805e6)],
)
def test_the_h22_family_has_the_papers_sizes(name: str, parameters: float) -> None:
    shape = shape_of(name)
    assert shape.parameters_non_embedding == pytest.approx(parameters, rel=0.01)
    assert (shape.d_head, shape.d_model) == (64, 128 * shape.layers)


def test_counts_equal_a_hand_count_and_the_model() -> None:
    shape, vocabulary = shape_of("2x64"), 1000
    # Per layer: queries, keys, values, output 4·64², and an MLP of 64·256 + 256·64.
    assert shape.parameters_non_embedding == 2 * (4 * 64**2 + 2 * 64 * 256) == 98_304
    model = Decoder(shape, vocabulary, context=16, seeds=[0])
    assert shape.parameters_total(vocabulary) == sum(parameter.numel() for parameter in model.parameters())
    matrices = sum(parameter.numel() for name, parameter in model.blocks.named_parameters() if "gain" not in name)
    assert shape.parameters_non_embedding == matrices


def test_flops_equal_a_hand_count() -> None:
    # One layer, d_model 2, vocabulary 3, context 4, one sequence: forward products cost 2 per weight and token,
    # 2·(12·2² + 3·2) = 108; attention sees 1 + 2 + 3 + 4 = 10 pairs of 2·2·2 = 8 each, 80 over 4 tokens, 20 a token.
    assert Shape(layers=1, d_model=2, heads=1).training_flops_per_token(3, 4) == 3 * (108 + 20)


@pytest.mark.parametrize("name", ["", "L", "0L", "2x", "2x20", "x64", "2x64x3", "2l", "-2L"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="is no size"):
        shape_of(name)

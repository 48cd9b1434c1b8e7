"""Load a causal language model through transformers, and compute its attention patterns and losses."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from data_prep.errors import InputError
from data_prep.sources.document import one_line
from repeat_study.hugging_face.folder import CONFIG, INDEX, NOT_WEIGHTS, ModelFolder, check_finite, read_json
from repeat_study.hugging_face.headers import check_complete, check_shape, check_used

# Limits the memory for logits: 0.6 GB for a vocabulary of 150,000. A longer sequence takes a pass of its own, e.g. 1.2 GB for 2,048 tokens.
TOKENS_PER_PASS = 1 << 10
SEED = 0  # of the untrained model's weights
COUNTS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")  # in config.json
NO_LIMIT = 1 << 30  # context of models without position embeddings
TOLERANCE = 1e-3  # for the checks of attention patterns, whose rows may be rounded


class CausalLM:
    """A model of transformers, in float32 and without dropout."""

    def __init__(self, model: Any, folder: ModelFolder) -> None:
        self.model, self.folder = model.eval(), folder
        self.device: torch.device = model.device

    @torch.no_grad()
    def token_losses(self, sequences_bs: Tensor) -> Tensor:
        """Loss in nats of every token except the first, float32 on the CPU, [batch, time + 1] to [batch, time]."""
        rows = max(1, TOKENS_PER_PASS // sequences_bs.shape[1])
        losses = []
        for chunk in sequences_bs.to(self.device).split(rows):
            with _library(self.folder, "run"):
                logits_bvt = self.model(chunk[:, :-1], use_cache=False).logits.float().transpose(1, 2)
            losses.append(F.cross_entropy(logits_bvt, chunk[:, 1:], reduction="none").cpu())
        return torch.cat(losses)

    @torch.no_grad()
    def attention_patterns(self, tokens_bt: Tensor) -> list[Tensor]:
        """The attention pattern of every layer, [batch, heads, time, time].

        Raises InputError if the model does not return causal patterns, for example because it has no attention.
        """
        with _library(self.folder, "run"):
            output = self.model(tokens_bt.to(self.device), use_cache=False, output_attentions=True)
        patterns = [pattern for pattern in getattr(output, "attentions", None) or () if pattern is not None]
        time = tokens_bt.shape[1]
        for pattern in patterns:
            shape_fits = pattern.dim() == 4 and pattern.shape[2:] == (time, time)
            if not shape_fits or pattern.triu(1).abs().max() > TOLERANCE or pattern.sum(dim=-1).max() > 1 + TOLERANCE:
                raise InputError(
                    f"{self.folder.path}: this {self.folder.model_type} model does not return causal attention patterns, which"
                    " the probes need"
                )
        if not patterns or len({pattern.shape[1] for pattern in patterns}) > 1:
            raise InputError(
                f"{self.folder.path}: this {self.folder.model_type} model has no attention patterns, or layers with different numbers"
                " of heads; expected the same number in every layer"
            )
        return [pattern.float() for pattern in patterns]


def checked_sizes(folder: ModelFolder) -> tuple[int, int]:
    """The size of the vocabulary, and the longest sequence that the model accepts in tokens.

    Raises the same errors as `load_trained`, as far as config.json and the headers of the weight files show them.
    """
    if (folder.path / INDEX).is_file() and "metadata" not in read_json(folder.path / INDEX):
        raise InputError(
            f"{folder.path / INDEX}: no metadata, which transformers needs to load a {folder.model_type} model"
        )
    with _library(folder) as transformers:
        whole = _config(transformers, folder)
        config = whole.get_text_config()
        for key in COUNTS:
            value = getattr(config, key, None)
            if isinstance(value, int) and value < 1:
                raise InputError(f"{folder.path / CONFIG}: {key}: {value} found; expected 1 or more")
        if (layers := getattr(config, "num_hidden_layers", 0)) > len(folder.shapes):
            raise InputError(
                f"{folder.path / CONFIG}: num_hidden_layers: {layers:,} found, but the weights have only"
                f" {len(folder.shapes):,} tensors"
            )
        with torch.device("meta"):
            _check_headers(folder, _from_config(transformers, whole))
        return int(config.vocab_size), int(getattr(config, "max_position_embeddings", None) or NO_LIMIT)


def _check_headers(folder: ModelFolder, model: Any) -> None:
    """Raise InputError if a tensor does not have the shape that config.json implies, or if the model is larger than the files.

    model: on PyTorch's meta device, so it uses no memory for weights. Some tensors may have other names in the folder, which the
    library converts when it loads them.
    """
    prefix = f"{model.base_model_prefix}."
    names = {prefix + name: name for name in folder.shapes} | {name: name for name in folder.shapes}
    names |= {name.removeprefix(prefix): name for name in folder.shapes}
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for name in sorted(shapes.keys() & names.keys()):
        check_shape(folder, names[name], folder.shapes[names[name]], shapes[name])
    if sum(map(math.prod, shapes.values())) > sum(map(math.prod, folder.shapes.values())):
        check_complete(folder, shapes.keys() - names.keys())


def load_trained(folder: ModelFolder, device: str = "cpu") -> CausalLM:
    """Load the folder's model.

    Raises InputError if transformers is missing, if it does not support the model, if the weights do not fit config.json, or if a
    weight is NaN or infinite.
    """
    with _library(folder) as transformers:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder.path),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",  # other implementations do not return attention patterns
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported below, with their names
        )
    check_complete(folder, info["missing_keys"])  # the library would use random weights instead
    for name, actual, expected in sorted(info["mismatched_keys"]):
        check_shape(folder, name, actual, expected)
    check_used(folder, {name for name in info["unexpected_keys"] if not NOT_WEIGHTS.search(name)})
    for name, parameter in model.named_parameters():
        check_finite(folder.files.get(name, folder.path), name, parameter.detach())
    return CausalLM(model.to(device), folder)


def load_untrained(folder: ModelFolder, device: str = "cpu") -> CausalLM:
    """A model with the same configuration and random weights. Raises the same errors as `load_trained`."""
    with _library(folder) as transformers, torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = _from_config(transformers, _config(transformers, folder))
    return CausalLM(model.to(device), folder)


def _config(transformers: Any, folder: ModelFolder) -> Any:
    return transformers.AutoConfig.from_pretrained(str(folder.path), local_files_only=True, trust_remote_code=False)


def _from_config(transformers: Any, config: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_config(
        config, trust_remote_code=False, dtype=torch.float32, attn_implementation="eager"
    )


@contextmanager
def _library(folder: ModelFolder, action: str = "load") -> Iterator[Any]:
    """Import transformers, and convert its errors to an InputError that names the folder."""
    if "auto_map" in folder.config:
        raise InputError(
            f"{folder.path / CONFIG}: auto_map: this {folder.model_type} model needs code from its folder, which is never run"
        )
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise InputError(
            f"{folder.path}: a {folder.model_type} model needs the transformers library; run pip install 'repeat-study[models]'"
        ) from error
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if folder.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise InputError(
            f"{folder.path / CONFIG}: model_type: {folder.model_type!r} found; expected a causal language model that transformers"
            f" {transformers.__version__} has, such as gpt2, gpt_neox, llama or qwen3"
        )
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield transformers
    except InputError:
        raise
    except Exception as error:  # the library raises many types of error
        raise InputError(
            f"{folder.path}: transformers {transformers.__version__} cannot {action} it: {one_line(error)}"
        ) from error

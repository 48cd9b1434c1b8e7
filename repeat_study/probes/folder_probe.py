"""Run the probes on a model in a Hugging Face folder, and on an untrained model with the same configuration as the null.

Models that can be converted to our decoder get every score that needs no training data. Other causal language models get the
scores that follow from their attention patterns and losses.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from data_prep.errors import InputError
from repeat_study.formatting import short_count
from repeat_study.hugging_face import causal_lm
from repeat_study.hugging_face.causal_lm import CausalLM
from repeat_study.hugging_face.decoders import DecoderConfig, decoder_config, trained_decoder, untrained_decoder
from repeat_study.hugging_face.folder import ModelFolder, open_folder
from repeat_study.hugging_face.vocabulary import Vocabulary, read_vocabulary
from repeat_study.model.decoder import Decoder
from repeat_study.probes import checkpoint_probe
from repeat_study.probes.checkpoint_probe import check_memory
from repeat_study.probes.exported_probe import NoStore, exported_run, is_exported
from repeat_study.probes.head_table import HeadTable, columns_of, head_table, score_samples
from repeat_study.probes.heads import attention_samples
from repeat_study.probes.in_context import in_context
from repeat_study.probes.model_texts import ModelTexts, model_texts
from repeat_study.probes.positions import CONTEXT, EARLY, LATE
from repeat_study.probes.probe import Evaluation
from repeat_study.probes.probed_model import ProbedModel
from repeat_study.probes.reports import Report, ignore
from repeat_study.records.metrics import METRICS

LONGEST_CONTEXT = 2_048  # by default; enough for 11 copies of the shipped paragraphs
MOST_ABLATED = 16  # heads; ablating all of them would take most of the time
SEED = 0  # of an untrained decoder
PROBES = ("text_losses", "copying", "head_table")
Model = TypeVar("Model")


@dataclass(frozen=True)
class Loader(Generic[Model]):
    """How to load and evaluate the model in a folder.

    vocabulary: number of embedding rows. context: the longest sequence that the model accepts. trained, untrained: load a model
        for sequences of the given length. evaluate: measure a model and ablate up to the given number of heads.
    """

    vocabulary: int
    context: int
    trained: Callable[[int], Model]
    untrained: Callable[[int], Model]
    evaluate: Callable[[Model, ModelTexts, int, Report], Evaluation]


def probe_folder(
    path: Path,
    data_dir: Path,
    text: str | None = None,
    context: int | None = None,
    device: str = "cpu",
    ablation: bool = True,
    report: Report = ignore,
) -> ProbedModel:
    """Measure the model in a folder. An exported run is measured like the run itself if `data_dir` contains its token store.

    text: paragraphs to copy instead of the shipped English ones. context: length of the longest probe sequence in tokens, which excludes
    the run's own texts; by default, the model's own context, up to 2,048 tokens. ablation: whether to ablate the heads with the
    highest prefix matching. report: called before every stage. Raises InputError if the folder, the text or the context cannot be used.
    """
    folder = open_folder(path)
    notes, no_store = [], "there is no token store of the training data"
    if context is not None or not ablation:
        if is_exported(folder):
            option = "--no-ablation" if context is None else "--context"
            no_store = f"with {option}, an exported run is measured without its token store"
    else:
        try:
            if exported := exported_run(folder, data_dir):
                return checkpoint_probe.probe(exported, text, device, report)
        except NoStore as error:
            notes = [f"measured without the run's own texts: {error}"]
            no_store = "the run's token store is not available"
    parameters = sum(map(math.prod, folder.shapes.values()))
    check_memory(path, "the model needs", parameters)
    config = decoder_config(folder)
    loader: Loader[Any] = _decoder_loader(folder, config, device) if config else _causal_lm_loader(folder, device)
    vocabulary = read_vocabulary(folder, loader.vocabulary)
    if text is not None and vocabulary.tokenizer is None:
        raise InputError(f"{path}: no tokenizer to encode the text with; expected a tokenizer.json")
    length = _context(path, context, loader.context)
    texts = model_texts(vocabulary, length, text)
    title = f"{path}: {folder.model_type}, {short_count(parameters)} parameters"
    # Only one model is in memory at a time. Ablating the untrained model as well would double the time.
    trained = loader.evaluate(
        loader.trained(length), texts, MOST_ABLATED if ablation else 0, lambda stage: report(f"{title}; {stage}")
    )
    if not math.isfinite(trained.row["random_copying_loss"]):
        raise InputError(f"{path}: the model's losses are NaN or infinite in float32, so it cannot be measured")
    untrained = loader.evaluate(
        loader.untrained(length), texts, 0, lambda stage: report(f"{title}; {stage} in the untrained model")
    )
    return ProbedModel(
        {"model": Path(os.path.realpath(path)).name},
        title,
        length,
        texts.paragraphs.copying.probe if texts.paragraphs else None,
        texts.heads,
        trained,
        untrained,
        (*notes, *_notes(folder, vocabulary, texts, trained, no_store, converted=config is not None)),
    )


def _decoder_loader(folder: ModelFolder, config: DecoderConfig, device: str) -> Loader[Decoder]:
    return Loader(
        config.vocab_size,
        config.max_position_embeddings,
        lambda context: trained_decoder(folder, config, context).to(device),
        lambda context: untrained_decoder(config, context, SEED).to(device),
        _evaluate_decoder,
    )


def _causal_lm_loader(folder: ModelFolder, device: str) -> Loader[CausalLM]:
    vocabulary, context = causal_lm.checked_sizes(folder)
    return Loader(
        vocabulary,
        context,
        lambda _: causal_lm.load_trained(folder, device),
        lambda _: causal_lm.load_untrained(folder, device),
        _evaluate_causal_lm,
    )


def _context(path: Path, given: int | None, longest: int) -> int:
    if given is not None and given > longest:
        raise InputError(f"--context: {given:,} found; {path} accepts up to {longest:,} tokens")
    return given or min(longest, LONGEST_CONTEXT)


def _evaluate_decoder(model: Decoder, texts: ModelTexts, most_ablated: int, report: Report) -> Evaluation:
    """Measure everything that needs no training data."""
    report("attention heads")
    scores = texts.heads(model)
    if texts.paragraphs and most_ablated:
        copying, rotations = texts.paragraphs.copying.probe, texts.paragraphs.rotations
        table = head_table(model, scores, copying, rotations, most_ablated, report)
    else:
        samples = {name: of_lane[0] for name, of_lane in score_samples(scores).items()}
        table = HeadTable({"ov_copying": scores.ov_copying[0], **columns_of(samples)})

    def token_losses(sequences_bs: Tensor) -> Tensor:
        return model.token_losses(sequences_bs[None].to(model.embedding.device))[0].cpu()

    random = scores.random_copying().row("random_copying")
    return _text_scores(token_losses, texts, report) | Evaluation(random | table.best_heads(), {"heads": table.flat()})


def _evaluate_causal_lm(model: CausalLM, texts: ModelTexts, most_ablated: int, report: Report) -> Evaluation:
    """Measure what follows from attention patterns and losses. No heads are ablated."""
    report("attention heads")
    sequences = texts.heads.sequences
    scores = texts.heads.attention_scores(model.device)
    by_layer = [scores(pattern) for pattern in model.attention_patterns(sequences[:, :-1])]
    by_head = {name: torch.stack([layer[name] for layer in by_layer]).movedim(1, -1).cpu() for name in by_layer[0]}
    table = HeadTable(columns_of(attention_samples(by_head)))
    random = texts.heads.random_copying(model.token_losses(sequences)).row("random_copying")
    return _text_scores(model.token_losses, texts, report) | Evaluation(
        random | table.best_heads(), {"heads": table.flat()}
    )


def _text_scores(token_losses: Callable[[Tensor], Tensor], texts: ModelTexts, report: Report) -> Evaluation:
    """The in-context score and the copying losses; empty without a tokenizer."""
    if texts.paragraphs is None:
        return Evaluation()
    copying = texts.paragraphs.copying
    report("copied paragraphs")
    losses = copying.probe.losses(token_losses(copying.probe.sequences))
    report("in-context score")
    row = in_context(token_losses(texts.paragraphs.rotations)) | losses.row("copying")
    return Evaluation(row, {"paragraph": copying.paragraph_columns(losses.copied[0])})


def _notes(
    folder: ModelFolder, vocabulary: Vocabulary, texts: ModelTexts, trained: Evaluation, no_store: str, converted: bool
) -> list[str]:
    """How the model was measured, and which scores are missing and why. no_store: why there are no losses on the training data."""
    token = vocabulary.tokenizer.id_to_token(vocabulary.start_token) if vocabulary.tokenizer else None
    notes = [
        f"random tokens: from the middle half of the {len(vocabulary.ordinary):,} ordinary tokens, ordered by id",
        f"start token: {vocabulary.start_token}" + (f" ({token!r})" if token else ""),
    ]
    if texts.paragraphs:
        count, time = len(texts.paragraphs.rotations), texts.paragraphs.rotations.shape[1] - 1
        share = min(time, CONTEXT) / CONTEXT
        notes.append(
            f"in-context score: loss near token {round(LATE * share)} minus loss near token {round(EARLY * share)} of the paragraphs in"
            f" {count} order{'s' if count > 1 else ''}"
        )
    if "ablation_copying_loss" in trained.tables["heads"]:
        heads = len(trained.tables["heads"]["head"])
        which = f"the {MOST_ABLATED} with the highest prefix matching" if heads > MOST_ABLATED else "all"
        notes.append(f"ablated: {which} of the trained model's {heads:,} heads; none of the untrained model's")
    no_text = (
        "its tokenizer cannot encode the shipped text and decode it again; use --text"
        if vocabulary.tokenizer
        else "the folder has no tokenizer.json, so only random tokens can be copied"
    )
    missing: dict[str, list[str]] = {}
    for metric in METRICS:
        if metric.probe in PROBES and not (metric.key in trained.row or metric.column in trained.tables["heads"]):
            if metric.column and not converted:
                reason = (
                    f"the weights of {folder.model_type} models cannot be converted; only qwen3 and exported runs can"
                )
            else:
                reason = no_store if metric.probe == "text_losses" and metric.is_loss else no_text
                if metric.column and texts.paragraphs:
                    reason = "skipped because of --no-ablation"
            missing.setdefault(reason, []).append(metric.name)
    return notes + [f"not measured: {', '.join(names)} ({reason})" for reason, names in missing.items()]

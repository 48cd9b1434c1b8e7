"""`repeat-study export`: write a trained model as a Hugging Face folder."""

from pathlib import Path
from typing import Annotated

import typer

from data_prep.errors import InputError
from repeat_study_cli.arguments import (
    RUN_HELP,
    DataOption,
    RunFolderArgument,
    RunsOption,
    SetOption,
    console,
    run_folder,
)


def export(
    study_or_folder: RunFolderArgument,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Write the folders DIR/step-N.")],
    run: Annotated[str | None, typer.Argument(metavar="RUN", help=RUN_HELP)] = None,
    step: Annotated[
        int | None,
        typer.Option(
            min=1, help="Export the weights from this step, if they were kept. [default: the last checkpoint]"
        ),
    ] = None,
    all_steps: Annotated[bool, typer.Option("--all-steps", help="Export every step whose weights were kept.")] = False,
    set_: SetOption = None,
    data_dir: DataOption = Path("data"),
    runs_dir: RunsOption = Path("runs"),
) -> None:
    """Write a trained model as a Hugging Face folder.

    The folder contains config.json, model.safetensors, the tokenizer, a model card and spec.json. Specify the run as STUDY RUN or by its
    folder.
    """
    from repeat_study.export import exported_folder
    from repeat_study.export.conversion import MODELING
    from repeat_study.formatting import byte_size
    from repeat_study.records.run_directory import RunDirectory

    if step is not None and all_steps:
        raise InputError("--step and --all-steps exclude each other; use one of them")
    directory = RunDirectory(run_folder(study_or_folder, run, set_, data_dir, runs_dir))
    steps: list[int | None] = [*exported_folder.kept_steps(directory)] if all_steps else [step]
    # Compare existing folders first, so that nothing is written if one has other content. Without checkpoints, loading the last one
    # raises the right error.
    for number in sorted(
        steps or [None],
        key=lambda number: number is None or exported_folder.is_new(exported_folder.target_of(to, number)),
    ):
        trained = exported_folder.load_step(directory, data_dir, number)
        is_new = exported_folder.is_new(exported_folder.target_of(to, trained.step))
        target = exported_folder.export(trained, directory, to)
        size = sum(path.stat().st_size for path in target.iterdir())
        console.print(f"{'written' if is_new else 'unchanged'}: {target} ({byte_size(size)})")
    if not trained.store.has_tokenizer:
        console.print(
            "no tokenizer: the run's token store was built from tokens and has none; set data.tokenizer to change this"
        )
    if (target / f"{MODELING}.py").exists():
        console.print("to load it with transformers, pass trust_remote_code=True; the model's code is in the folder")

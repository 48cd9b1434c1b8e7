"""`repeat-study dev-cluster`: start or stop a small SLURM cluster on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from data_prep.errors import InputError
from repeat_study_cli.arguments import console


def dev_cluster(
    action: Annotated[str, typer.Argument(metavar="start|stop", help="What to do with the cluster.")],
    folder: Annotated[Path, typer.Option(help="Folder for the cluster's files.")] = Path("dev-cluster"),
) -> None:
    """Start or stop a small SLURM cluster on this machine for testing.

    The cluster has two nodes with 2 cores and 2 simulated GPUs each. Jobs in partition urgent preempt jobs in partition main.
    """
    from slurm.dev_cluster import DevCluster

    cluster = DevCluster(folder)
    if action == "start":
        cluster.start()
        console.print("started: two nodes with 2 cores and 2 simulated GPUs each")
        console.print("partitions: main, urgent (preempts main)")
        console.print(f"to use it in this shell: export SLURM_CONF={cluster.conf}")
    elif action == "stop":
        console.print("stopped" if cluster.stop() else f"{cluster.folder}: no cluster is running here")
    else:
        raise InputError(f"dev-cluster: unknown action {action!r}; expected start or stop")

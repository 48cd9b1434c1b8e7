"""The process that starts the training processes asks for the hardware, so this module has to be quick to import."""

import subprocess
import sys


def test_hardware_is_queried_without_importing_lightning() -> None:
    code = (
        "import sys; from repeat_study.config.resources import Resources; from repeat_study.model.hardware import gpus_for;"
        " gpus_for(Resources()); print('lightning' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"

"""sbatch, squeue and scancel that start the job's script as a local process, as far as dask-jobqueue can tell."""

from __future__ import annotations

import sys
from pathlib import Path

SBATCH = """#!{python}
import os, pathlib, re, subprocess, sys
folder = pathlib.Path({folder!r})
script = pathlib.Path(sys.argv[-1]).read_text()
if (folder / "refuse").exists():
    sys.exit("sbatch: error: invalid partition specified: nowhere")
number = len(list(folder.glob("*.sh"))) + 1
(folder / f"{{number}}.sh").write_text(script)
walltime = (folder / "walltime").read_text() if (folder / "walltime").exists() else "1000"
command = ["timeout", "--signal=KILL", walltime, "bash", str(folder / f"{{number}}.sh")]
log = open(folder / f"{{number}}.log", "w")
job = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
(folder / f"{{number}}.pid").write_text(str(job.pid))
print(f"Submitted batch job {{number}}")
"""
SQUEUE = """#!{python}
import os, pathlib
for file in pathlib.Path({folder!r}).glob("*.pid"):
    status = pathlib.Path(f"/proc/{{file.read_text()}}/stat")
    if status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        print(file.stem)
"""
SCANCEL = """#!{python}
import os, pathlib, signal, sys
(pathlib.Path({folder!r}) / "cancelled").open("a").write(sys.argv[1] + "\\n")
try:
    os.killpg(int((pathlib.Path({folder!r}) / f"{{sys.argv[1]}}.pid").read_text()), signal.SIGTERM)
except ProcessLookupError:
    sys.exit("scancel: error: Invalid job id specified")
"""


ARRAY_SBATCH = """#!{python}
import os, pathlib, re, subprocess, sys
folder = pathlib.Path({folder!r})
script = pathlib.Path(sys.argv[-1]).read_text()
if (folder / "refuse").exists():
    sys.exit("sbatch: error: invalid partition specified: nowhere")
number = len(list(folder.glob("*.sh"))) + 1
(folder / f"{{number}}.sh").write_text(script)
(folder / f"{{number}}.words").write_text("\\n".join(sys.argv[1:-1]))
array = re.search(r"#SBATCH --array=0-(\\d+)", script)
for element in range(int(array[1]) + 1) if array else [None]:
    own = {{}} if element is None else {{"SLURM_ARRAY_TASK_ID": str(element)}}
    log = open(folder / f"{{number}}_{{element}}.log", "w")
    job = subprocess.run(["bash", str(folder / f"{{number}}.sh")], env=os.environ | own, stdout=log, stderr=log)
    (folder / f"{{number}}_{{element}}.code").write_text(str(job.returncode))
print(f"{{number}};cluster")
"""


SRUN = """#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
echo $$ > {folder}/srun.pid
exec "$@"
"""
JOB_SBATCH = """#!{python}
import os, pathlib, re, subprocess, sys
folder = pathlib.Path({folder!r})
number, script = "7", pathlib.Path(sys.argv[-1])
(folder / "7.sh").write_text(script.read_text())
log = open(re.search(r"#SBATCH --output=(.*)", script.read_text())[1].replace("%j", number), "a")
own = os.environ | {{"SLURM_JOB_ID": number}}
job = subprocess.Popen(["bash", str(folder / "7.sh")], env=own, start_new_session=True, stdout=log, stderr=log)
(folder / "7.pid").write_text(str(job.pid))
print(number)
"""
SCONTROL = """#!{python}
import pathlib, subprocess, sys
folder = pathlib.Path({folder!r})
with (folder / "scontrol").open("a") as said:
    said.write(" ".join(sys.argv[1:]) + "\\n")
subprocess.Popen(["bash", str(folder / "7.sh")], start_new_session=True)
"""


def write_commands(folder: Path, **texts: str) -> Path:
    """Write commands; what they keep is in `slurm_state` beside the folder that is returned, for the PATH."""
    state, commands = folder / "slurm_state", folder / "slurm_bin"
    state.mkdir()
    commands.mkdir()
    for name, text in texts.items():
        (commands / name).write_text(text.format(python=sys.executable, folder=str(state)))
        (commands / name).chmod(0o755)
    return commands


def install_jobs(folder: Path) -> Path:
    """Write `sbatch`, `srun` and `scontrol`: one job, number 7, in the background, that runs again when requeued."""
    return write_commands(folder, sbatch=JOB_SBATCH, srun=SRUN, scontrol=SCONTROL)


def install_arrays(folder: Path) -> Path:
    """Write an `sbatch` that runs a batch file at once, each element of its array in turn; jobs are kept beside it."""
    return write_commands(folder, sbatch=ARRAY_SBATCH, srun=SRUN)


def install(folder: Path) -> Path:
    """Write the three commands, and return the folder to put on the PATH; jobs are kept beside it.

    A file `walltime` there ends jobs after so many seconds, one named `refuse` makes sbatch fail.
    """
    return write_commands(folder, sbatch=SBATCH, squeue=SQUEUE, scancel=SCANCEL)

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


def install_arrays(folder: Path) -> Path:
    """Write an `sbatch` that runs a batch file at once, each element of its array in turn; jobs are kept beside it."""
    state = folder / "slurm_state"
    state.mkdir()
    commands = folder / "slurm_bin"
    commands.mkdir()
    (commands / "sbatch").write_text(ARRAY_SBATCH.format(python=sys.executable, folder=str(state)))
    (commands / "sbatch").chmod(0o755)
    return commands


def install(folder: Path) -> Path:
    """Write the three commands, and return the folder to put on the PATH; jobs are kept beside it.

    A file `walltime` there ends jobs after so many seconds, one named `refuse` makes sbatch fail.
    """
    state = folder / "slurm_state"
    state.mkdir()
    commands = folder / "slurm_bin"
    commands.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)):
        (commands / name).write_text(text.format(python=sys.executable, folder=str(state)))
        (commands / name).chmod(0o755)
    return commands

"""`fmct demo`: the whole way of a scan on a synthetic cohort, from files on disk to a report and what it shows."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fmct.console.command import Command
from fmct.console.errors import ExitCode, FmctError

if TYPE_CHECKING:
    from fmct.demo.clock import Clock
    from fmct.demo.stage import Stage
    from fmct.demo.stages import Plan


class Demo(Command):
    """Synthetic head CTs -> index -> preprocess -> pretrain -> adapt -> test elsewhere -> report, on a laptop CPU.

    Prints each command before it runs; what it prints itself is in OUT/logs. Killed, it goes on where it was: what is
    done is not done again; --fresh starts over. At the end it says what the runs show, with confidence intervals, and
    writes OUT/table.md. --size headline is the same design with more scans, three seeds and hours of training; quick
    sees that all parts work, and learns nothing.

    Example: fmct demo
    """

    out: Path | None = Field(None, description="folder for everything (default: runs/SIZE)")
    size: Literal["quick", "demo", "headline"] = Field("demo", description="how much is made and trained")
    seed: int = Field(0, ge=0, description="of the cohort")
    workers: int = Field(2, gt=0, description="processes that make and preprocess scans, and that train few-shot runs")
    fresh: bool = Field(False, description="set an earlier demo in the same folder aside, under a numbered name")

    def run(self) -> ExitCode:
        """Run the stages in order, and say what they show.

        Raises:
            FmctError: naming the stage that failed.
        """
        from fmct.console.occupied import occupied

        out = self.out or Path("runs") / self.size
        with occupied(out):
            return self._go(out)

    def _go(self, out: Path) -> ExitCode:
        """Run what is left to do, alone in the folder."""
        from fmct.demo.clock import Clock, Record
        from fmct.demo.conclusion import conclusion
        from fmct.demo.outcome import outcomes
        from fmct.demo.sizes import SIZES
        from fmct.demo.stages import Plan
        from fmct.demo.table import write_table
        from fmct.evaluation.wording import duration
        from fmct.experiment.runs import set_aside

        if self.fresh and out.exists():
            print(f"the earlier demo is now in {set_aside(out)}")
        plan = Plan(SIZES[self.size], out, self.seed, self.workers)
        stages = plan.stages()
        record = Record(out / "stages")
        left = [stage for stage in stages if not record.knows(stage)]
        clock = Clock(stages, record)
        if len(left) < len(stages):
            print(f"{len(stages) - len(left)} of {len(stages)} stages are done already")
        print(f"{len(left)} stages, about {duration(clock.left)} on this machine")
        for number, stage in enumerate(stages, 1):
            if stage in left:
                self._do(stage, f"[{number}/{len(stages)}]", clock, plan)
        found = outcomes(plan)
        write_table(found, plan)
        print(f"\n{duration(clock.elapsed)} in all\n\n{conclusion(found, plan)}\n\nOpen {out / 'report.html'}")
        return ExitCode.DONE

    def _do(self, stage: Stage, number: str, clock: Clock, plan: Plan) -> None:
        """Run the commands of a stage, their output in a log."""
        from fmct.console.quietly import run_quietly
        from fmct.demo.line import shown, timing
        from fmct.demo.telling import after, before

        print(f"\n{number} {stage.title} ({timing(clock)})", flush=True)
        log = plan.out / "logs" / f"{stage.name}.log"
        before(stage, plan)
        clock.begin(stage)
        with shown(clock, number):
            for command in stage.commands:
                print(f"$ fmct {shlex.join(command)}", flush=True)
                outcome = run_quietly(command, log)
                if not outcome.ok:
                    raise FmctError(
                        f"the stage «{stage.title}» failed: {outcome.error}",
                        f"fmct {shlex.join(command)}",
                        f"mend that (the whole output is in {log}) and run the demo again: it goes on from there",
                    )
        clock.end()
        for line in after(stage, plan):
            print(line, flush=True)


COMMAND = Demo

"""A job runs again for what it reads, not for what was run before it.

When Snakemake plans a run, it marks whatever follows a job that will run. Once a checkpoint has run it plans anew, and
drops jobs whose inputs turned out as they were; but what follows those keeps its mark, so that one corrected caption
would compute every embedding's neighbours, losses and captions anew, of all datasets. Here marks are forgotten before
each plan, and given again where there is a reason. The Snakefile imports this: standard library only.
"""

from functools import wraps
from typing import Any


def plan_by_content(dag_class: Any) -> None:
    """Have Snakemake's DAG forget, at each plan of this run, which jobs it had marked for jobs before them."""
    plan = dag_class.update_needrun
    if hasattr(plan, "__wrapped__"):  # by this function, in this process
        return

    @wraps(plan)
    async def by_content(dag, *arguments, **named):
        for job in dag.jobs:
            if not dag.finished(job):
                dag.reason(job).updated_input_run.clear()
        await plan(dag, *arguments, **named)

    dag_class.update_needrun = by_content

"""Prints, as JSON, under which key Snakemake's cache between workflows would keep each extracted part and each trained
network of a study: `python cache_keys.py STUDY...`, in a checkout whose datasets have been read."""

import asyncio
import json
import sys
from pathlib import Path

from snakemake.api import DAGSettings, OutputSettings, ResourceSettings, SnakemakeApi, StorageSettings
from snakemake.caching.hash import ProvenanceHashMap
from snakemake.settings.types import ConfigSettings, Quietness


def keys(study: Path) -> dict[str, str]:
    """Output -> key."""
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(configfiles=[study]),
            storage_settings=StorageSettings(),
            snakefile=Path("Snakefile"),
        )
        workflow.dag(DAGSettings()).printrulegraph()
        hashes = ProvenanceHashMap()
        jobs = [job for job in workflow._workflow.dag.jobs if job.rule.cache and job.rule.cache.output]
        return {job.output[0]: asyncio.run(hashes.get_provenance_hash(job)) for job in jobs}


if __name__ == "__main__":
    print(json.dumps({path: keys(Path(path)) for path in sys.argv[1:]}))

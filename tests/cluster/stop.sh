#!/usr/bin/env bash
# Stops what start.sh started: cancels all jobs, ends the daemons by their process ids, removes the files in /etc/slurm.
set -uo pipefail
. "$(dirname "$0")/settings.sh"

no_job() { [ -z "$(timeout 5 squeue -h)" ]; }
if configured && process slurmctld > /dev/null && process slurmd > /dev/null; then
  squeue -h -o %A | xargs -r timeout 10 scancel # else their processes would go on without slurmd
  eventually 15 no_job || echo "stop.sh: some jobs did not end within 15 seconds" >&2
fi
gone() { ! process "$1"; }
for daemon in slurmd slurmctld munged; do
  id=$(process "$daemon") || continue
  kill "$id"
  eventually 15 gone "$daemon" || kill -9 "$id"
done
configured && rm -f "$ETC"/{slurm,gres,cgroup}.conf
exit 0

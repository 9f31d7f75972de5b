#!/usr/bin/env bash
# Starts a SLURM cluster of one node, this machine, for tests: real munged, slurmctld and slurmd, on the loopback address.
#   apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge
#   tests/cluster/start.sh; sinfo; ...; tests/cluster/stop.sh
# Needs root, but no systemd, cgroups or container. The node claims processors, memory and GPUs that it need not have, and
# isolates nothing. A job over its memory is killed; there is no accounting, so `sacct` does not work.
set -euo pipefail
. "$(dirname "$0")/settings.sh"

for program in munged munge slurmctld slurmd scontrol sinfo sbatch; do
  command -v "$program" > /dev/null \
    || fail "$program is missing: apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge"
done
if [ -e "$ETC/slurm.conf" ]; then
  grep -qxF "$OURS" "$ETC/slurm.conf" || fail "$ETC/slurm.conf is of another cluster, which stays as it is"
  configured || fail "$ETC/slurm.conf is of a test cluster in another folder: stop that one first"
fi
process slurmctld > /dev/null && fail "the test cluster is up already: tests/cluster/stop.sh ends it"
"$(dirname "$0")/stop.sh" # what a broken start left behind
rm -rf "$CLUSTER"/{state,spool,tasks} "$CLUSTER"/*.log
mkdir -p "$CLUSTER"/{state,spool} "$ETC"
chmod 755 "$CLUSTER"

# What each task of a job sees. SLURM reads a line that starts with "export" from its output, so it prints nothing.
cat > "$CLUSTER/prolog.sh" << 'END'
#!/bin/sh
echo "$SLURM_JOB_ID ${SLURM_STEP_ID:-batch} $SLURM_JOB_PARTITION ${CUDA_VISIBLE_DEVICES-none}" >> "$(dirname "$0")/tasks"
END
chmod 755 "$CLUSTER/prolog.sh"

cat > "$ETC/slurm.conf" << END
$OURS
ClusterName=lossmap
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${LOSSMAP_CLUSTER_PORT:-6827}
SlurmdPort=$((${LOSSMAP_CLUSTER_PORT:-6827} + 1))
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire: a requeued job waits for so many seconds (120, if it were left out)
AuthInfo=socket=$CLUSTER/munge.socket,cred_expire=5
StateSaveLocation=$CLUSTER/state
SlurmdSpoolDir=$CLUSTER/spool
SlurmctldPidFile=$CLUSTER/slurmctld.pid
SlurmdPidFile=$CLUSTER/slurmd.pid
SlurmctldLogFile=$CLUSTER/slurmctld.log
SlurmdLogFile=$CLUSTER/slurmd.log
AccountingStorageType=accounting_storage/none
# squeue still knows a job an hour after its end: without accounting the executor asks nobody else
MinJobAge=3600
# memory as read from /proc, every two seconds; there are no cgroups to enforce it
ProctrackType=proctrack/linuxproc
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
TaskPlugin=task/none
TaskProlog=$CLUSTER/prolog.sh
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
# between SIGTERM and SIGKILL
KillWait=5
# a time limit holds to the second, not for another minute
OverTimeLimit=0
MailProg=/bin/true
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=localhost NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 CPUs=16 RealMemory=262144 Gres=gpu:test:2
PartitionName=cpu Nodes=localhost Default=YES MaxTime=INFINITE
PartitionName=gpu Nodes=localhost MaxTime=INFINITE
END
# A GPU must be a character device: with a plain file, or none, CUDA_VISIBLE_DEVICES would not be set.
printf 'NodeName=localhost Name=gpu Type=test File=%s\n' /dev/null /dev/zero > "$ETC/gres.conf"
# slurmd loads a cgroup plug-in even if nothing uses it, and version 2 wants systemd. Before 23.02 none can't be said.
case "$(slurmd -V)" in
  "slurm 2"[012].* | "slurm-wlm 2"[012].*) echo "CgroupPlugin=cgroup/v1" ;;
  *) echo "CgroupPlugin=disabled" ;;
esac > "$ETC/cgroup.conf"

show_logs() { tail -n 5 "$CLUSTER"/*.log >&2 || true; }
trap 'show_logs; "$(dirname "$0")/stop.sh"' ERR
head -c 1024 /dev/urandom > "$CLUSTER/munge.key"
chmod 600 "$CLUSTER/munge.key"
munged --socket="$CLUSTER/munge.socket" --key-file="$CLUSTER/munge.key" --pid-file="$CLUSTER/munged.pid" \
  --log-file="$CLUSTER/munged.log" --seed-file="$CLUSTER/munge.seed"
eventually 10 munge -n -S "$CLUSTER/munge.socket"
slurmctld -c
eventually 20 scontrol show config
slurmd -N localhost -c
eventually 20 sh -c '[ "$(sinfo -h -p cpu -o %T)" = idle ]'
echo "$(sinfo --version): one node is idle; logs in $CLUSTER"

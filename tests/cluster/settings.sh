# What start.sh and stop.sh share: where the test cluster lives, and which of its daemons are alive.
CLUSTER=${LOSSMAP_CLUSTER:-/tmp/lossmap-cluster} # configuration, state, logs; sockets live here too, so keep it short
ETC=/etc/slurm # where clients look; SLURM_CONF would not do: the plug-in drops it inside a job
OURS="# Made by Lossmap's tests/cluster/start.sh"
PATH=$PATH:/usr/sbin:/sbin

fail() {
  echo "$(basename "$0"): $1" >&2
  exit 1
}

# Process id of a daemon that we started, if it still lives. A zombie does not: in a container nobody may reap it.
process() {
  local id
  id=$(cat "$CLUSTER/$1.pid" 2> /dev/null) && grep -q "^$id ($1) [^ZX]" "/proc/$id/stat" 2> /dev/null && echo "$id"
}

# eventually SECONDS COMMAND...: whether the command succeeds within that time.
eventually() {
  local last=$((SECONDS + $1))
  shift
  until "$@" > /dev/null 2>&1; do
    [ "$SECONDS" -lt "$last" ] || return 1
    sleep 0.2
  done
}

# Whether the configuration in /etc/slurm is that of this cluster.
configured() { grep -qxF "StateSaveLocation=$CLUSTER/state" "$ETC/slurm.conf" 2> /dev/null; }

[ "$(id -u)" = 0 ] || fail "must run as root"

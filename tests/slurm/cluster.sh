#!/usr/bin/env bash
# A real Slurm of one node for the tests, under one folder; root on Debian with slurm-wlm and munge installed.
#   tests/slurm/cluster.sh start DIR [PORT] | stop DIR
# Two partitions: jobs of `high` preempt those of `low` (REQUEUE). Environment for clients: SLURM_CONF=DIR/slurm.conf
set -euo pipefail
what=$1
dir=$2
conf=$dir/slurm.conf
port=${3:-16817}

stop() {
  for name in slurmd slurmctld munged; do
    if [ -f "$dir/$name.pid" ]; then kill "$(cat "$dir/$name.pid")" 2>/dev/null || true; fi
  done
}

if [ "$what" = stop ]; then
  stop
  exit 0
fi

mkdir -p "$dir"/state "$dir"/spool "$dir"/munge
chmod 755 "$dir"
host=$(hostname)
cpus=$(env -u OMP_NUM_THREADS nproc)  # nproc believes that variable
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
dd if=/dev/urandom of="$dir/munge/key" bs=1 count=1024 2>/dev/null
chmod 700 "$dir/munge"
chmod 400 "$dir/munge/key"
munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
  --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
cat > "$conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,requeue_delay=1
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
SlurmctldPort=$port
SlurmdPort=$((port + 1))
ReturnToService=2
KillWait=20
MinJobAge=300
InactiveLimit=0
SwitchType=switch/none
JobCompType=jobcomp/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=low Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=$host MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
export SLURM_CONF=$conf
slurmctld -f "$conf"
slurmd -f "$conf" -N "$host"
for _ in $(seq 100); do
  if [ "$(sinfo --noheader --format=%T --partition=low 2>/dev/null)" = idle ]; then exit 0; fi
  sleep 0.2
done
echo "Slurm did not come up; see $dir/slurmctld.log and $dir/slurmd.log" >&2
tail -n 5 "$dir"/*.log >&2
stop
exit 1

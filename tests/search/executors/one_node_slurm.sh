#!/usr/bin/env bash
# A Slurm of one node, with accounting, for the tests that need a real one:
#
#   apt-get install --no-install-recommends slurmctld slurmd slurm-client slurmdbd munge mariadb-server
#   bash tests/search/executors/one_node_slurm.sh start    # stop ends it
#   python -m pytest -m slow tests/search -k slurm
#
# As root on Debian 12, and only in a container or a virtual machine of its own: it writes /etc/slurm,
# and ends every MariaDB and every Slurm there.
set -euo pipefail

configuration=/etc/slurm/slurm.conf
if [ -e "$configuration" ] && ! grep -q '^ClusterName=cmtscale_tests$' "$configuration"; then
  echo "$configuration is of another cluster, which would be lost; use a machine without one" >&2
  exit 2
fi
daemons=(slurmd slurmctld slurmdbd mariadbd munged)

stop() {
  local daemon
  for daemon in "${daemons[@]}"; do
    pkill -x "$daemon" || true
    timeout 20 bash -c "while pgrep -x $daemon >/dev/null; do sleep 0.1; done" || pkill -9 -x "$daemon"
  done
}

until_it_works() {
  local tries
  for tries in {1..60}; do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 0.5
  done
  "$@"
}

start() {
  local node
  node=$(hostname -s)
  rm -rf /var/spool/slurmctld /var/spool/slurmd # job ids begin at 1, and accounting below anew
  install -d -o munge -g munge /run/munge /var/log/munge /var/lib/munge
  install -d -o mysql -g mysql /run/mysqld
  install -d /var/spool/slurmctld /var/spool/slurmd /var/log/slurm
  install -m 600 /dev/null /etc/slurm/slurmdbd.conf
  cat >/etc/slurm/slurmdbd.conf <<EOF
AuthType=auth/munge
DbdHost=localhost
LogFile=/var/log/slurm/slurmdbd.log
PidFile=/run/slurmdbd.pid
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=cmtscale_tests
EOF
  # ClusterName: by it the tests know that they may kill jobs and daemons.
  # CPUs: more than one, also on a small machine, for the tests submit several jobs at a time.
  # cred_expire: a job that is queued again starts after this many seconds, which are 120 otherwise.
  cat >"$configuration" <<EOF
ClusterName=cmtscale_tests
SlurmctldHost=$node
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
JobAcctGatherType=jobacct_gather/linux
KillWait=10
MpiDefault=none
ProctrackType=proctrack/linuxproc
ReturnToService=2
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdLogFile=/var/log/slurm/slurmd.log
SlurmdPidFile=/run/slurmd.pid
SlurmdParameters=config_overrides
SlurmdSpoolDir=/var/spool/slurmd
StateSaveLocation=/var/spool/slurmctld
TaskPlugin=task/none
NodeName=$node CPUs=4 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
EOF
  runuser -u munge -- munged
  setsid mariadbd --user=mysql >/var/log/slurm/mariadbd.log 2>&1 &
  until_it_works mysqladmin ping
  mysql -e "drop database if exists cmtscale_tests; create or replace user slurm@localhost identified by 'slurm';
    grant all on cmtscale_tests.* to slurm@localhost"
  slurmdbd
  until_it_works sacctmgr -n show cluster
  sacctmgr -i add cluster cmtscale_tests >/dev/null
  slurmctld
  slurmd
  until_it_works srun --immediate=5 true
  sinfo
}

case ${1:-} in
start) stop; start ;;
stop) stop ;;
*)
  echo "one_node_slurm.sh start or stop" >&2
  exit 2
  ;;
esac

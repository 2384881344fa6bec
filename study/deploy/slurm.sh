#!/bin/bash
# A study in a Slurm allocation: one Ray cluster on its nodes, the driver on the first of them.
#
#   sbatch --nodes 4 study/deploy/slurm.sh search_spaces/pgps.yaml --data DATA --dataset 4 --out STUDY
#
# Submit it from the checkout. What follows the script are the arguments of `python -m study run`; DATA and STUDY are
# absolute paths that all nodes share. Three minutes before the time limit every training writes a checkpoint and the
# job goes back to the queue; so it does when Slurm preempts it. The same sbatch command resumes the study, too.
# study/deploy/README.md says what to change.

#SBATCH --job-name=pgps-study
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=48G
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=pgps-study-%j.log

set -euo pipefail

VENV="${VENV:-.venv}"                                       # the environment with the study in it, shared too
HEAD_IP="${HEAD_IP:-$(hostname -I | cut -d ' ' -f 1)}"      # where the other nodes reach the first one
PORT="${PORT:-$((20000 + SLURM_JOB_ID % 20000))}"           # its own for each job, because jobs may share a node
START_SECONDS="${START_SECONDS:-300}"                       # how long the nodes may take to come up
INTERRUPTED=130                                             # how the driver ends when it was asked to stop

# shellcheck source=/dev/null
source "$VENV/bin/activate"

# Whoever reaches a Ray cluster can run code on it as you. The token lives as long as the job and is in no file.
RAY_AUTH_TOKEN="$(python -c 'import secrets; print(secrets.token_hex(32))')"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
unset RAY_AUTH_TOKEN_PATH
export RAY_ADDRESS="$HEAD_IP:$PORT" RAY_USAGE_STATS_ENABLED=0
# A training whose worker has gone writes a checkpoint and ends by itself.
export RAY_kill_child_processes_on_worker_exit=0

cpus="${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}"
folder="/tmp/ray-$SLURM_JOB_ID"
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

# ray_on NUMBER_OF_NODES SRUN_OPTION RAY_OPTION…: `ray start` on some of the nodes, as a step of the job.
ray_on() {
    local count="$1" where="$2"
    shift 2
    srun --overlap --nodes="$count" --ntasks="$count" --ntasks-per-node=1 --cpus-per-task="$cpus" "$where" \
        ray start --block --disable-usage-stats --num-cpus="$cpus" --object-store-memory=200000000 \
        --temp-dir="$folder" "$@" &
    steps+=("$!")
}

# alive: how many nodes have joined. One that cannot be asked yet has none.
alive() { { ray status --address "$RAY_ADDRESS" 2>/dev/null || true; } | sed -n '/^Active:/,/^Pending:/p' | grep -c 'node_'; }

# wait_for_nodes NUMBER: until so many have joined; ends the job when they do not.
wait_for_nodes() {
    local deadline=$((SECONDS + START_SECONDS))
    until (("$(alive || true)" >= $1)); do
        if ((SECONDS >= deadline)); then
            echo "only $(alive || true) of $1 nodes joined Ray at $RAY_ADDRESS within $START_SECONDS s; is HEAD_IP right?" >&2
            exit 1
        fi
        sleep 1
    done
}

driver="" again="" told="" steps=()
# shellcheck disable=SC2329  # a trap calls it
stop() {
    again="$1" told=yes
    # Before there is a driver there is nothing to save.
    if [[ -n "$driver" ]]; then kill -TERM "$driver" 2>/dev/null || true; else exit "$INTERRUPTED"; fi
}
# shellcheck disable=SC2329  # a trap calls it
finish() {
    local code=$?
    trap '' TERM INT USR1
    kill -TERM "${steps[@]}" 2>/dev/null || true
    wait
    srun --overlap --nodes="${#nodes[@]}" --ntasks-per-node=1 rm -rf "$folder" || true
    if [[ "$code" == "$INTERRUPTED" && -n "$again" ]]; then
        echo "back to the queue: the study resumes when the job starts again"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}
trap finish EXIT
trap 'stop again' USR1      # the time limit is near
trap 'stop ""' TERM INT     # cancelled, or preempted: then Slurm itself sends the job back to the queue

ray_on 1 --nodelist="${nodes[0]}" --head --node-ip-address="$HEAD_IP" --port="$PORT" --include-dashboard=false \
    --dashboard-agent-listen-port="$((PORT + 1))" --ray-client-server-port="$((PORT + 2))"
wait_for_nodes 1
if ((${#nodes[@]} > 1)); then
    ray_on "$((${#nodes[@]} - 1))" --exclude="${nodes[0]}" --address="$RAY_ADDRESS" \
        --dashboard-agent-listen-port="$((PORT + 1))"
fi
wait_for_nodes "${#nodes[@]}"

python -m study run "$@" --address "$RAY_ADDRESS" &
driver="$!"
# A signal ends `wait`, but not the driver: it has checkpoints to wait for.
while
    told="" code=0
    wait "$driver" || code=$?
    [[ -n "$told" ]]
do :; done
exit "$code"

#!/bin/bash
# Requeue the job if training saved its state after a signal or was killed by a signal. Always exit with training's exit code.
# submitit appends these lines to the batch script, directly after the srun command that trains.
code=$?

# 75 (EX_TEMPFAIL in sysexits.h): training received a signal and saved its state (slurm.preemption.REQUEUE_EXIT_CODE).
# 129 to 191: a signal killed a process, for example because memory ran out.
if [ "$code" -ne 75 ] && { [ "$code" -le 128 ] || [ "$code" -ge 192 ]; }; then
  exit "$code"
fi

# Use the array index to identify the job, because the job that starts last has the same plain id as the entire array.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}

# slurmctld may be down for a while, so retry for at least five minutes. Give up if it refuses three times.
refused=0
for _ in $(seq 60); do
  if job_record=$(timeout 20 scontrol show job --oneliner "$job"); then
    # Do nothing if SLURM is ending or requeueing the job, which is then no longer RUNNING, or if SLURM has lost this node
    # and restarted the job on another one, which increases the number of restarts.
    case "$job_record" in
      *" JobState=RUNNING "*" Restarts=${SLURM_RESTART_COUNT:-0} "*) ;;
      *) break ;;
    esac
    if timeout 20 scontrol requeue "$job"; then
      echo "exit code $code: requeued"
      break
    fi
    refused=$((refused + 1))
    [ "$refused" -lt 3 ] || break
  fi
  sleep 5
done
exit "$code"

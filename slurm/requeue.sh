#!/bin/bash
# Requeues the job if training saved its state and left, or if a signal killed it; otherwise passes on its exit code.
# submitit puts these lines at the end of the batch script, right after the srun command that trains.
code=$?

# 75 (EX_TEMPFAIL in sysexits.h): training was told to leave and saved its state (slurm.preemption.REQUEUE_EXIT_CODE).
# 129 to 191: a signal killed a process, sent by hand or by the kernel when memory ran out.
if [ "$code" -ne 75 ] && { [ "$code" -le 128 ] || [ "$code" -ge 192 ]; }; then
  exit "$code"
fi

# Name the job as an element of its array: the element that started last has the same plain id as the whole array.
job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}

# slurmctld may be down for a while, so try for at least five minutes. Three refusals are final.
refused=0
for _ in $(seq 60); do
  if job_record=$(timeout 20 scontrol show job --oneliner "$job"); then
    # Leave the job alone if SLURM is ending or requeueing it (no longer RUNNING), or if SLURM gave this node up and
    # restarted the job on another one (more restarts than this script knows of).
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

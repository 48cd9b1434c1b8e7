"""Cancel a study's queued jobs."""

from collections.abc import Collection
from pathlib import Path

from slurm import client
from slurm.submissions import jobs_by_run, preparation_jobs, read_submissions, submission_lock


def cancel(names: Collection[str] | None, study_dir: Path) -> list[str]:
    """Cancel the jobs of the named runs, or all jobs of the study if `names` is None. Returns the ids of the cancelled jobs.

    Runs that are training save their state first. Other runs in the same jobs also stop but are not marked as cancelled.
    """
    with submission_lock(study_dir):
        submissions = read_submissions(study_dir)
        queue = client.queued_jobs()
        jobs_of = jobs_by_run(submissions, queue)
        chosen = set(jobs_of) if names is None else set(jobs_of).intersection(names)
        for submission in submissions:
            if cancelled := chosen.intersection(submission.runs):
                submission.cancelled = sorted({*submission.cancelled, *cancelled})
                submission.write()
        job_ids = list(dict.fromkeys(job.job_id for name in sorted(chosen) for job in jobs_of[name]))
        if names is None:
            job_ids += [job.job_id for job in preparation_jobs(submissions, queue)]
        client.cancel_jobs(job_ids)
        return job_ids


def runs_sharing_jobs(names: Collection[str], study_dir: Path) -> list[str]:
    """Names of other queued runs that share a job with any of the named runs."""
    jobs_of = jobs_by_run(read_submissions(study_dir), client.queued_jobs())
    job_ids = {job.job_id for name in names for job in jobs_of.get(name, [])}
    return sorted(run for run, jobs in jobs_of.items() if run not in names and job_ids & {job.job_id for job in jobs})

"""``run -o``: a dataset as shards, from a listing to a summary."""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from maskscore.cli.exit_codes import Exit
from maskscore.cli.optional_dependencies import check_installed, needs_extra
from maskscore.cli.progress import RunProgressDisplay
from maskscore.cli.run_output import print_dry_run
from maskscore.cli.shard_run_output import ShardRunDisplay, print_shard_summary, print_tars
from maskscore.cli.stop_and_resume import command_to_resume, stopped_by_signals
from maskscore.cli.worker_warnings import warn_of_workers
from maskscore.client import Client
from maskscore.dataset import Dataset, RunOptions, ShardProgressCounts, find_tars, is_tar, run_shards

__all__ = ["check_goes_with_output", "run_as_shards"]


_OF_JOBS: Final = ("--result-uri", "--content-id")


def check_goes_with_output(images: str, given: dict[str, Any]) -> None:
    """Raise :class:`click.UsageError` for an option that is only for single jobs, or not for tar files."""
    for name, value in given.items():
        if value and (name in _OF_JOBS or is_tar(images)):
            raise click.UsageError(f"{name} does not go with {'-o' if name in _OF_JOBS else 'tar files'}")


def run_as_shards(
    dataset: Dataset,
    output: str,
    run_options: RunOptions,
    pairs_per_list: int,
    batch_id: str | None,
    limit: int | None,
    dry_run: bool,
    resume: bool,
    retry_failed: bool,
    follow: bool,
    as_json: bool,
) -> None:
    """Score a dataset as shards, print the summary, and exit with 1 where an image has no result."""
    if retry_failed:
        check_installed("pyarrow", "export")
    listing = RunProgressDisplay()
    with Client() as client, stopped_by_signals() as stop, needs_extra("formats"):

        def seen(files: int) -> None:
            listing.listing(files)
            if stop.signal is not None:
                raise KeyboardInterrupt

        def shown(progress: ShardProgressCounts) -> None:
            listing.close()
            display.show(progress)

        display = ShardRunDisplay()
        if dry_run:
            if is_tar(dataset.images):
                print_tars(find_tars(dataset.images, client.objects), as_json=as_json)
                return
            with listing, dataset.opened(client.objects, limit=limit, seen=seen) as opened:
                listing.close()
                print_dry_run(opened, as_json=as_json, pairs_per_list=pairs_per_list)
            return
        warn_of_workers(client, run_options.options.model, run_options.options.prompts)
        with listing:
            summary = run_shards(
                client,
                dataset,
                output,
                run_options,
                batch_id=batch_id,
                pairs_per_list=pairs_per_list,
                limit=limit,
                resume=resume,
                retry=retry_failed,
                follow=follow,
                stopped=lambda: stop.signal is not None,
                noted=lambda sentence: click.echo(f"maskscore: {sentence}", err=True),
                seen=seen,
                shown=shown,
            )
    print_shard_summary(summary, as_json=as_json)
    again = command_to_resume(summary.batch_id)
    if stop.signal is not None:
        what = "the shards go on" if summary.progress.complete else "the shards that were submitted go on"
        click.echo(f"maskscore: stopped; {what}. Go on with:\n  {again}", err=True)
        sys.exit(128 + stop.signal)
    if not follow and not summary.refused:
        click.echo(f"maskscore: all are submitted. Follow them with:\n  {again}", err=True)
    elif not summary.succeeded:
        if summary.failures or summary.counts.failed:
            click.echo(f"maskscore: when that is mended, go on with:\n  {again} --retry-failed", err=True)
        sys.exit(Exit.NOT_SUCCEEDED)

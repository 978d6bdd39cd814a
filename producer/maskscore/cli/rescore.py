"""``rescore``: jobs again, with other prompts, thresholds, a head or model."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterable, Iterator

import click
from pydantic import ValidationError

from maskscore.cli.batch_or_job import find_batch, read_job_ids
from maskscore.cli.exit_codes import Exit
from maskscore.cli.job_tables import print_results
from maskscore.cli.jobs_without_scores import JobsWithoutScores
from maskscore.cli.progress import shown_progress
from maskscore.cli.shared_options import head_named, prompts_named, scoring_options_of
from maskscore.cli.worker_warnings import warn_of_workers
from maskscore.client import Client
from maskscore.errors import InvalidDocumentError
from maskscore.schema import JobResult, Method, explain
from maskscore.text import counted

__all__ = ["rescore_command"]


@click.command("rescore")
@click.argument("names", nargs=-1, required=True, metavar="BATCH|JOB...")
@scoring_options_of("prompts", "thresholds", "method", "top_k", "embeddings", "head", "model")
@click.option("--result-uri", help="s3://bucket/prefix/ for the results.")
@click.option("--batch-id", help="Id of the new batch; running again under it submits what is missing.")
@click.option("--wait", "wait_", is_flag=True, help="Wait for the results and print them.")
@click.option("--timeout", type=float, help="With --wait: seconds to wait at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def rescore_command(
    names: tuple[str, ...],
    prompts: str | None,
    thresholds: dict[str, float] | None,
    method: Method | None,
    top_k: int | None,
    embeddings: bool | None,
    head: str | None,
    model: str | None,
    result_uri: str | None,
    batch_id: str | None,
    wait_: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """Score earlier jobs again with other prompts or thresholds.

    The method, top-k, the head and the model can be changed, and embeddings be asked for, too.

    Each BATCH|JOB is the id of a batch or of a job; `-` reads ids from stdin. The new jobs' ids are printed, one per
    line. With workers that keep features (MASKSCORE_FEATURE_CACHE) no mask goes through the model again; --wait says
    how many did.
    """
    if all(value is None for value in (prompts, thresholds, method, top_k, embeddings, head, model)):
        raise click.UsageError(
            "say what is to be changed: --prompts, --thresholds, --method, --top-k, --embeddings, --head or --model"
        )
    prompt_set = None if prompts is None else prompts_named(prompts)
    tally, without_scores = _Tally(), JobsWithoutScores()
    with Client() as client:
        if prompt_set is not None or model is not None:
            warn_of_workers(client, model, prompt_set)
        try:
            batch = client.rescore(
                _job_ids(client, read_job_ids(names)),
                prompts=prompt_set,
                thresholds=thresholds,
                method=method,
                top_k=top_k,
                head=None if head is None else head_named(head),
                model=model,
                embeddings=embeddings,
                result_uri=result_uri,
                batch_id=batch_id or uuid.uuid4().hex,
                wait_for_room=True,
            )
        except ValidationError as error:
            raise InvalidDocumentError(f"The options are not valid: {explain(error)}.") from error
        count = len(batch)
        click.echo(f"maskscore: {counted(count, 'job')} submitted, batch {batch.batch_id}", err=True)
        if not wait_:
            for job_id in batch.job_ids():
                click.echo(json.dumps({"job_id": job_id, "batch_id": batch.batch_id}) if as_json else job_id)
            return
        ended = shown_progress(batch.as_completed(timeout), count, client=client, of=batch.job_ids())
        results = without_scores.count_in(tally.of(ended))
        print_results(results, as_json=as_json)
    click.echo(f"maskscore: {tally}", err=True)
    without_scores.print_examples()
    if tally.failed or without_scores:
        sys.exit(Exit.NOT_SUCCEEDED)


class _Tally:
    """Where the features of the masks came from."""

    def __init__(self) -> None:
        self.masks = self.cached = self.encoded = self.failed = 0

    def of(self, results: Iterable[JobResult]) -> Iterator[JobResult]:
        """Pass results on, and count."""
        for result in results:
            self.masks += sum(component.skipped is None for component in result.components)
            self.cached += result.cached
            self.encoded += result.encoded
            self.failed += result.error is not None
            yield result

    def __str__(self) -> str:
        return f"{counted(self.masks, 'mask')} scored: {self.cached:,} from the cache, {self.encoded:,} encoded"


def _job_ids(client: Client, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        batch = find_batch(client, name)
        yield from [name] if batch is None else batch.job_ids()

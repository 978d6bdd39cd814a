"""``rescore``: jobs again, with other prompts, thresholds, a head or model."""

from __future__ import annotations

import json
import sys
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import click
from pydantic import ValidationError

from maskscore.cli.batch_or_job import find_batch, read_job_ids
from maskscore.cli.exit_codes import Exit
from maskscore.cli.job_tables import print_results
from maskscore.cli.jobs_without_scores import JobsWithoutScores
from maskscore.cli.optional_dependencies import check_installed
from maskscore.cli.progress import shown_progress
from maskscore.cli.shared_options import head_named, place_for_parts, prompts_named, scoring_options_of
from maskscore.cli.worker_warnings import warn_of_workers
from maskscore.client import Client, copy_categories_of_parts
from maskscore.dataset import make_output_folder, shards_of_parts
from maskscore.errors import InvalidDocumentError, JobNotFound
from maskscore.results import is_parts_folder
from maskscore.schema import JobResult, Method, ScoringOptions, Shard, explain, thresholds_by_method
from maskscore.text import counted

__all__ = ["rescore_command"]


@click.command("rescore")
@click.argument("names", nargs=-1, required=True, metavar="BATCH|JOB|PARTS...")
@scoring_options_of("prompts", "thresholds", "method", "top_k", "embeddings", "head", "model")
@click.option("--from-embeddings", is_flag=True, help="Score PARTS by their embeddings, without their images.")
@click.option("-o", "--result-uri", help="s3://bucket/prefix/ for the results; of shards, or a folder, for parts.")
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
    from_embeddings: bool,
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
    how many did. PARTS, a folder or s3:// prefix with a slash in its name, stands for the shards whose parts are there;
    a shard is scored again into parts below --result-uri. A head is applied to parts without it: `export --head`.

    With --from-embeddings, parts of shards that were scored with --embeddings are scored with other --prompts without
    their images; what else is not given is the default, and the scores have the precision of float16 embeddings.
    """
    if all(value is None for value in (prompts, thresholds, method, top_k, embeddings, head, model)):
        raise click.UsageError(
            "say what is to be changed: --prompts, --thresholds, --method, --top-k, --embeddings, --head or --model"
        )
    if from_embeddings and (prompts is None or result_uri is None or embeddings or model is not None):
        raise click.UsageError(
            "--from-embeddings takes --prompts and --result-uri; the model is that of the embeddings, and they are kept"
        )
    if result_uri is not None and (from_embeddings or not result_uri.startswith("s3://")):
        result_uri = place_for_parts("--result-uri", result_uri)
        make_output_folder(result_uri)
    prompt_set = None if prompts is None else prompts_named(prompts)
    head_or_name = None if head is None else head_named(head)
    tally, without_scores = _Tally(), JobsWithoutScores()
    with Client() as client:
        if prompt_set is not None or model is not None:
            warn_of_workers(client, model, prompt_set)
        try:
            if from_embeddings:
                given = {"prompts": prompt_set, "method": method, "top_k": top_k, "head": head_or_name}
                options = {name: value for name, value in given.items() if value is not None}
                shards = _shards_from_embeddings(
                    client, read_job_ids(names), result_uri or "", options | thresholds_by_method(thresholds or {})
                )
                batch = client.submit_many(shards, batch_id=batch_id or uuid.uuid4().hex, wait_for_room=True)
            else:
                batch = client.rescore(
                    _job_ids(client, read_job_ids(names)),
                    prompts=prompt_set,
                    thresholds=thresholds,
                    method=method,
                    top_k=top_k,
                    head=head_or_name,
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
    """What came of the jobs, and where the features of their masks came from."""

    def __init__(self) -> None:
        self.masks = self.cached = self.encoded = self.of_shards = self.parts = 0
        self.failed: Counter[str] = Counter()

    def of(self, results: Iterable[JobResult]) -> Iterator[JobResult]:
        """Pass results on, and count."""
        for result in results:
            self.masks += sum(component.skipped is None for component in result.components)
            self.cached += result.cached
            self.encoded += result.encoded
            if result.error is not None:
                self.failed[result.error.code] += 1
            if result.shard is not None:
                self.parts += result.shard.parts
                self.of_shards += result.shard.counts.masks - result.shard.counts.skipped
            yield result

    def __str__(self) -> str:
        said = []
        if self.masks:
            said.append(
                f"{counted(self.masks, 'mask')} scored: {self.cached:,} from the cache, {self.encoded:,} encoded"
            )
        if self.parts:
            # A shard does not count where its features came from.
            said.append(f"{counted(self.of_shards, 'mask')} scored, of shards into {counted(self.parts, 'part')}")
        if self.failed:
            listed = ", ".join(f"{code} {count:,}" for code, count in self.failed.items())
            said.append(f"{counted(self.failed.total(), 'job')} without a result: {listed}")
        return "; ".join(said if self.masks or self.parts else ["no mask scored", *said])


def _job_ids(client: Client, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if is_parts_folder(name):
            yield from _shards_of_parts(client, name)
            continue
        batch = find_batch(client, name)
        yield from [name] if batch is None else batch.job_ids()


def _shards_from_embeddings(
    client: Client, places: Iterable[str], output_uri: str, options: dict[str, Any]
) -> Iterator[Shard]:
    check_installed("pyarrow", "export")
    valid = ScoringOptions.model_validate(options)
    for place in places:
        if not is_parts_folder(place):
            raise click.UsageError(f"--from-embeddings takes places of parts, with a slash in their names; got {place}")
        shards = list(shards_of_parts(place, output_uri, valid))
        copy_categories_of_parts(client.objects, {shard.source.uri for shard in shards}, output_uri)
        yield from shards


def _shards_of_parts(client: Client, place: str) -> list[str]:
    """Return the ids of the shards whose parts are in a place; their documents say what they are made of."""
    check_installed("pyarrow", "export")
    from maskscore import results

    shards: dict[str, None] = {}
    for batch in results.open(place, "images").to_batches(columns=["job_id"]):
        shards |= dict.fromkeys(batch["job_id"].unique().to_pylist())
    try:
        client.statuses(shards)
    except JobNotFound as error:
        raise JobNotFound(
            f"The parts in {place} are of shards that Redis does not know any more (MASKSCORE_RESULT_TTL_S), and parts "
            "do not say how a shard is scored again. Run its tar files or pairs with the new options into another "
            "place: `maskscore run`. With embeddings, parts are scored without images: --from-embeddings. A head needs "
            "no scoring: `maskscore export --head`."
        ) from error
    return list(shards)

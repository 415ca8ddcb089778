"""Fills batches: reads each sample straight from its shard into its row, and replaces or refuses a bad one."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from curate.datasets.files import Dataset
from curate.errors import UserError
from curate.loader.batch import Batch, BatchJob, Skipped
from curate.loader.buffers import Buffers, Layout
from curate.loader.errors import BadSample, log
from curate.loader.order import BatchPlan, SampleOrder
from curate.loader.sample_reader import SampleReader
from curate.loader.texts import Texts

TRIES = 64  # samples that are tried in place of a bad one


class Filler:
    """Lays out the batches of a dataset and fills them. With `skip` it replaces bad samples, else raises BadSample."""

    def __init__(self, dataset: Dataset, samples: SampleReader, order: SampleOrder, texts: Texts | None, skip: bool):
        self.dataset, self.samples, self.order, self.texts, self.skip = dataset, samples, order, texts, skip
        self.latents = [field for field in dataset.latents if field in samples.fields]
        self.masks = list(texts.masks.values()) if texts is not None else []
        self.conditions = _conditions(dataset)

    def job(self, plan: BatchPlan, first: int, rows: int, buffers: Buffers) -> BatchJob:
        """The job for the samples `first` to `first + rows` of a global batch."""
        choice = None
        latent = self.dataset.buckets[plan.bucket_name].latent
        fields = {field: (self.dataset.fields[field], latent) for field in self.latents}
        if self.texts is not None:
            choice = self.texts.choose(plan)
            length = self.texts.length(choice)
            fields["text"] = (self.texts.dtype, (length, self.texts.dim))
            fields["text_mask"] = ("bool", (length,))
        if self.conditions is not None:
            fields["conditions"] = ("float32", (self.conditions.shape[1],))
        layout = Layout(rows, fields)
        job = BatchJob(plan, choice, first, layout, buffers.take(layout.bytes))
        if job.choice is not None:
            np.less(np.arange(length), job.choice.tokens[:, None], out=job.arrays["text_mask"].view(bool))
        return job

    def fill(self, job: BatchJob, row: int) -> None:
        """Reads one sample into its row, or another one in its place."""
        text = job.choice.fields.item(row) if job.choice is not None else -1
        try:
            self._read(job, row, job.samples.item(row), text)
        except BadSample as error:
            if not self.skip:
                raise
            taken = self._replace(job, row, text, str(error))
            clip, by = (self.samples.clip_ids[sample].as_py() for sample in (job.samples.item(row), taken))
            job.skipped.append(Skipped(job.first + row, clip, by, str(error)))
            job.samples[row] = taken

    def batch(self, job: BatchJob, tensors: dict[str, Tensor]) -> Batch:
        """The batch of a finished job, whose memory `tensors` are views of."""
        latents = {field: tensors[field] for field in self.latents}
        if "tokens" in latents:
            latents["tokens"] = latents["tokens"].long()
        return Batch(
            step=job.plan.step,
            epoch=job.plan.epoch,
            bucket=job.plan.bucket_name,
            clip_ids=[self.samples.clip_ids[sample].as_py() for sample in job.samples.tolist()],
            latents=latents,
            text=tensors.get("text"),
            text_mask=tensors.get("text_mask"),
            conditions=tensors.get("conditions"),
            skipped=sorted(job.skipped, key=lambda each: each.place),
        )

    def _read(self, job: BatchJob, row: int, sample: int, text: int) -> None:
        """Reads a sample, with its text field of number `text` (-1: the empty prompt), into a row of the batch."""
        into = {field: job.span(field, row, job.layout.parts[field].row_bytes) for field in self.latents}
        if self.texts is not None:
            into |= self._text(self.texts, job, row, sample, text)
        self.samples.read(sample, into)
        if self.masks and any(field in into for field in self.masks):
            np.minimum(job.arrays["text_mask"][row], 1, out=job.arrays["text_mask"][row])  # a bool is 0 or 1
        if self.conditions is not None:
            job.arrays["conditions"][row] = self.conditions[sample].view(np.uint8)

    def _text(self, texts: Texts, job: BatchJob, row: int, sample: int, text: int) -> dict[str, memoryview]:
        """The memory to read a sample's text and mask into; writes zeros after it, and the empty prompt itself."""
        values = job.arrays["text"]
        tokens = texts.tokens.item(text, sample) if text >= 0 else len(texts.empty)
        size = tokens * texts.bytes_per_token
        values[row, size:] = 0
        if text < 0:
            values[row, :size] = texts.empty.view(np.uint8).reshape(-1)
            return {}
        name = texts.names[text]
        into = {name: job.span("text", row, size)}
        if name in texts.masks and self.samples.has(texts.masks[name], sample):
            into[texts.masks[name]] = job.span("text_mask", row, tokens)
        return into

    def _replace(self, job: BatchJob, row: int, text: int, why: str) -> int:
        """Reads another sample in place of a bad one, and returns its row in the index. Which one follows from the
        place alone, so that any rank would take the same.
        """
        place = int(job.plan.places[job.first + row])
        for attempt in range(TRIES):
            sample = self.order.replacement(job.plan.bucket, place, attempt)
            own = text
            if self.texts is not None:
                choice = self.texts.of(np.array([sample]), np.array([max(text, 0)]))
                own = int(choice.fields[0])
                if choice.tokens[0] > job.layout.parts["text"].shape[1]:  # ranks have agreed on the length
                    continue
                mask = job.arrays["text_mask"][row].view(bool)
                np.less(np.arange(len(mask)), choice.tokens[0], out=mask)
            try:
                self._read(job, row, sample, own)
            except BadSample:
                continue
            log.warning("%s; clip %s takes its place", why, self.samples.clip_ids[sample])
            return sample
        raise UserError(f"{why}; none of {TRIES} samples that could take its place can be read either")


def _conditions(dataset: Dataset) -> np.ndarray | None:
    """(samples, K) float32, NaN where unknown."""
    if not dataset.conditions:
        return None
    columns = dataset.columns(dataset.conditions)
    arrays = [columns[name].to_numpy().astype(np.float32) for name in dataset.conditions]
    return np.ascontiguousarray(np.stack(arrays, axis=1))

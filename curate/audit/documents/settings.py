"""The settings file of the documents: what only the provider of a dataset knows, in YAML."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, create_model

from curate.audit.documents.questions import QUESTIONS
from curate.errors import UserError, did_you_mean
from curate.recipe.yaml_lines import read_yaml
from stages.settings import Settings

Text = Annotated[str, Field(min_length=1)]
URL, MONTH = r"^[a-z][a-z0-9+.-]*:[^\s<>]+$", r"^(0[1-9]|1[0-2])/\d{4}$"
Url = Annotated[str, Field(pattern=URL)]
Month = Annotated[str, Field(pattern=MONTH)]
EXPECTED = {
    URL: "expected a URL such as https://spdx.org/licenses/CC-BY-4.0",
    MONTH: "expected a month such as 01/2026",
}


class ProviderSettings(Settings):
    """Who offers the dataset or the model."""

    name: Text | None = Field(None, description="the provider")
    contact: Text | None = Field(None, description="address and mail")
    url: Url | None = Field(None, description="the provider's page")
    representative: Text | None = Field(None, description="authorised representative in the Union, with contact")


class DatasetSettings(Settings):
    """What Croissant says of the dataset as a whole."""

    name: Text | None = Field(None, description="default: the dataset's, or the last part of the catalog's URI")
    version: Text | None = Field(None, description="MAJOR.MINOR.PATCH, in quotes")
    description: Text | None = Field(None, description="default: what the audit counted")
    url: Url | None = Field(None, description="its page")
    licence: Url | None = Field(None, description="URL of the licence of the dataset as a whole")
    published: datetime.date | None = Field(None, description="date of publication")
    cite: Text | None = Field(None, description="how to cite it, best in BibTeX")
    keywords: tuple[Text, ...] = Field((), description="list of keywords")


class FormSettings(Settings):
    """Fields of the EU summary that no catalog decides."""

    version: Text | None = Field(None, description="version of the summary")
    earlier: tuple[Url, ...] = Field((), description="links to earlier versions")
    models: Text | None = Field(None, description="versioned names of the models that were trained")
    base_model: Text | None = Field(None, description="model that was changed, with the link to its summary; or 'none'")
    placed_on_market: datetime.date | None = Field(None, description="date of placing on the market")
    text_size: Literal["under 1 bn tokens", "1 bn to 10 tn tokens", "over 10 tn tokens"] | None = Field(
        None, description="`under 1 bn tokens`, `1 bn to 10 tn tokens` or `over 10 tn tokens`"
    )
    text_content: Text | None = Field(None, description="types of text content")
    image_content: Text | None = Field(None, description="types of image content")
    video_content: Text | None = Field(None, description="types of video content")
    other_modalities: Text | None = Field(None, description="other modalities, with size; or 'none'")
    latest_acquisition: Month | None = Field(None, description="month in which data was last acquired, MM/YYYY")
    collection_continues: bool | None = Field(None, description="whether collection goes on after that")
    characteristics: Text | None = Field(None, description="regional, demographic and other characteristics")
    comments: Text | None = Field(None, description="such as tokenisation and compression")
    public_datasets: Text | None = Field(None, description="links and versions of public datasets; the rest of them")
    public_datasets_period: Text | None = Field(None, description="when public datasets were acquired")
    private_datasets: Text | None = Field(None, description="private datasets: those publicly known, and the rest")
    crawlers: Text | None = Field(None, description="names of the crawlers")
    crawl_purposes: Text | None = Field(None, description="what they crawled for")
    crawl_behaviour: Text | None = Field(None, description="what they do at robots.txt, captchas, paywalls")
    crawl_period: Text | None = Field(None, description="when they crawled")
    crawl_content: Text | None = Field(None, description="kinds of content and of sites")
    user_interactions: Text | None = Field(None, description="data from people's use of the provider's models")
    user_services: Text | None = Field(None, description="data from the provider's other services")
    synthetic_models: Text | None = Field(None, description="models that made synthetic sources, with links")
    other_sources: Text | None = Field(None, description="other sources of data; or 'none'")
    code_of_practice: bool | None = Field(None, description="whether the provider signed the Code of Practice")
    reservations: Text | None = Field(None, description="measures for reservations, before and during collection")
    illegal_content: Text | None = Field(None, description="measures against illegal content; which gates serve them")
    other: Text | None = Field(None, description="other information")


ANSWERS: dict[str, Any] = {each.key: (Text | None, Field(None, description=each.question)) for each in QUESTIONS}
DatasheetSettings = create_model("DatasheetSettings", __base__=Settings, **ANSWERS)  # by the key of the question


class DocumentSettings(Settings):
    """All of the settings file."""

    provider: ProviderSettings = ProviderSettings()
    dataset: DatasetSettings = DatasetSettings()
    eu_summary: FormSettings = FormSettings()
    datasheet: DatasheetSettings = DatasheetSettings()

    def answer(self, key: str) -> str | None:
        """What people say to a question of the datasheet."""
        return getattr(self.datasheet, key)


def read_settings(path: str | None) -> DocumentSettings:
    """The settings in a YAML file; none of them without one. UserError with file and line for what is wrong."""
    if path is None:
        return DocumentSettings()
    file = Path(path)
    _, data, lines = read_yaml(file)
    if data is not None and not isinstance(data, dict):
        raise UserError(f"{file}:1: expected settings by name; there is {', '.join(DocumentSettings.model_fields)}")
    try:
        return DocumentSettings.model_validate({key: {} if value is None else value
                                                for key, value in (data or {}).items()})  # fmt: skip
    except ValidationError as error:
        first = error.errors()[0]
        at = first["loc"]
        line = next((lines[at[:count]] for count in range(len(at), 0, -1) if at[:count] in lines), 1)
        where, name = f"{file}:{line}", ".".join(map(str, at))
        if first["type"] == "extra_forbidden":
            known: type[BaseModel] = DocumentSettings if len(at) == 1 else type(getattr(DocumentSettings(), str(at[0])))
            raise UserError(f"{where}: unknown key {name!r}{did_you_mean(str(at[-1]), known.model_fields)}") from error
        said = EXPECTED.get(str(first.get("ctx", {}).get("pattern")), first["msg"][0].lower() + first["msg"][1:])
        scalar = isinstance(first["input"], int | float | datetime.date)
        quotes = "; put it in quotes" if first["type"] == "string_type" and scalar else ""
        raise UserError(f"{where}: {name}: {said}, got {str(first['input'])[:80]!r}{quotes}") from error

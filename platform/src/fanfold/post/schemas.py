"""HTTP shapes of the post service; posts themselves are in `contracts.api`."""

from __future__ import annotations

from typing import Annotated, Final
from uuid import UUID

from pydantic import AfterValidator, Field, model_validator

from fanfold.contracts.api import Model
from fanfold.kit.text import free_text

MAX_IMAGES: Final = 10
MAX_CAPTION: Final = 2_200
MAX_ALT_TEXT: Final = 1_000

Caption = Annotated[str, Field(max_length=MAX_CAPTION), AfterValidator(free_text)]
AltText = Annotated[str, Field(max_length=MAX_ALT_TEXT), AfterValidator(free_text)]


class NewPost(Model):
    """A post to be: the caller's own images in the order to show them. `alt_texts` go with them by position."""

    image_ids: Annotated[list[UUID], Field(min_length=1, max_length=MAX_IMAGES)]
    caption: Caption = ""
    alt_texts: Annotated[list[AltText], Field(default_factory=list, max_length=MAX_IMAGES)]

    @model_validator(mode="after")
    def _consistent(self) -> NewPost:
        if len(set(self.image_ids)) != len(self.image_ids):
            raise ValueError("name each image once")
        if len(self.alt_texts) > len(self.image_ids):
            raise ValueError("there are more alt_texts than image_ids")
        return self


class CaptionChange(Model):
    """The new caption; empty removes it."""

    caption: Caption

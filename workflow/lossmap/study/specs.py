"""What a step or an exhibit receives of a study: typed, checked when the workflow is read, and again by the job."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Settings of one step or exhibit: all that its result depends on beside its inputs.

    SECTIONS: of a study, where fields are found by their names ("overlap", "reconstruction.training").
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    SECTIONS: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, study: dict, **values: Any) -> Self:
        """These settings of a study. values: fields that no section holds, such as the dataset; others are ignored.

        Raises: pydantic's ValidationError if a field is found nowhere, or is of another type.
        """
        found: dict = {}
        for name in cls.SECTIONS:
            section = study
            for key in name.split("."):
                section = section[key]
            found |= section
        found |= values
        return cls(**{name: found[name] for name in cls.model_fields if name in found})

"""Settings of steps, as their tests give them."""

from lossmap.study.specs import Spec, spec_of


def checked(step: str, settings: dict) -> Spec:
    """Settings as the step's command receives them."""
    return spec_of(step)(**settings)


PLAIN_FIGURES = checked("make_exhibit", {"scale": 1, "palette": "colorblind", "names": {}, "views": {"toy": "square"}})

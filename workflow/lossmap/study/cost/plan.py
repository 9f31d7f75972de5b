"""What a study will cost: disk, hours of a GPU, its memory, jobs. Arithmetic on configurations; nothing is run."""

from lossmap.data.counts import Count
from lossmap.errors import LossmapError
from lossmap.study.cost.extraction import plan_extraction, stored_datasets
from lossmap.study.cost.models import LanguageCost, VisionCost
from lossmap.study.cost.neighbours import plan_neighbours
from lossmap.study.cost.rates import Rates
from lossmap.study.cost.readers import plan_readers
from lossmap.study.cost.reconstruction import plan_reconstruction
from lossmap.study.cost.speech import plan_speech
from lossmap.study.cost.work import KINDS, Work


def plan_study(
    config: dict,
    counts: dict[str, Count],
    vision: dict[str, VisionCost],
    language: dict[str, LanguageCost],
    rates: Rates,
    notes: list[str],
) -> list[Work]:
    """All work of a study, by kind, then by model.

    Parameters: counts, of each of `stored_datasets`; vision and language, of each model whose configuration is known,
        language only where it `speaks`; notes, to which what can't be planned is added.
    """
    unknown = [dataset for dataset in stored_datasets(config) if counts[dataset].images is None]
    if unknown:
        notes.append(f"Nobody knows how many images {', '.join(unknown)} will have: what needs them is not planned.")
    works = []
    for name, model in vision.items():
        works += plan_extraction(config, counts, name, model, rates)
        try:
            works += plan_reconstruction(config, counts, name, model, rates) if "reconstruction" in config else []
        except LossmapError as error:
            notes.append(f"{name}: reconstruction is not planned. {error}")
        if name in language:
            works += plan_speech(config, counts, name, model.model_type, language[name], rates)
        works += plan_readers(config, counts, name, model, rates) if "readers" in config else []
        works += plan_neighbours(config, counts, name, model, rates)
    return sorted(works, key=lambda work: KINDS.index(work.kind))

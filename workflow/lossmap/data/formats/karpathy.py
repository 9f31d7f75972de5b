"""The Karpathy split of COCO or Flickr30k: `dataset_coco.json`, `dataset_flickr30k.json`."""

import posixpath

from lossmap.data.formats.parsing import Annotations, ImageEntry, Problems, load_json
from lossmap.data.sources import FORMATS


def parse(entry: dict, problems: Problems) -> Annotations:
    """The images of one split. Ids are COCO's, or file names without suffix (Flickr30k). Captions are the raw ones."""
    path, found, others = entry["annotations"], Annotations(), 0
    seen: dict[str, str] = {}
    splits = FORMATS["karpathy"].splits
    content = load_json(path, dict, problems, forget=("tokens",))
    for i, record in enumerate(problems.take(content, "images", "a list", path) or ()):
        where = f"{path}: images[{i}]"
        split = problems.take(record, "split", "text", where)
        if split is not None and split not in splits:
            problems.append(f'{where}: "split" is {split!r}, wanted one of {", ".join(splits)}')
        if split != entry["split"]:
            others += split is not None
            continue
        file = problems.take(record, "filename", "text", where)
        if file is None:
            continue
        if "filepath" in record:
            file = posixpath.join(problems.take(record, "filepath", "text", where) or "", file)
        stem = posixpath.splitext(posixpath.basename(file))[0]
        image_id = problems.take(record, "cocoid", "an id", where) if "cocoid" in record else stem
        captions = problems.take(record, "sentences", "a list", where)
        if captions == []:
            problems.append(f'{where}: "sentences" is empty')
        if image_id is None or not problems.is_new(seen, image_id, "image", where):
            continue
        found.images.append(ImageEntry(image_id, file, where))
        for j, sentence in enumerate(captions or ()):
            found.captions.append((image_id, problems.take(sentence, "raw", "text", f"{where}.sentences[{j}]")))
    found.left_out = {"images of other splits": others}
    return found

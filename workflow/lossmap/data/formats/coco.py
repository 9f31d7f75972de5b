"""COCO's own annotation files: `captions_*.json`, or `instances_*.json`, of which only the images are read."""

from lossmap.data.formats.parsing import Annotations, ImageEntry, Problems, load_json


def parse(entry: dict, problems: Problems) -> Annotations:
    """All images; captions if the file has any, then every annotation must be one."""
    path, found = entry["annotations"], Annotations()
    seen: dict[str, str] = {}
    content = load_json(path, dict, problems, forget=("segmentation", "bbox", "license", "coco_url", "flickr_url"))
    for i, record in enumerate(problems.take(content, "images", "a list", path) or ()):
        where = f"{path}: images[{i}]"
        image_id = problems.take(record, "id", "an id", where)
        file = problems.take(record, "file_name", "text", where)
        if image_id is not None and problems.is_new(seen, image_id, "image", where) and file is not None:
            found.images.append(ImageEntry(image_id, file, where))
    records = content.get("annotations", [])
    if not isinstance(records, list):
        problems.take(content, "annotations", "a list", path)
    elif any(isinstance(record, dict) and "caption" in record for record in records):
        for i, record in enumerate(records):
            where = f"{path}: annotations[{i}]"
            image_id = problems.take(record, "image_id", "an id", where)
            if image_id is not None and image_id not in seen:
                problems.append(f"{where}: image {image_id} is not among the file's images")
            found.captions.append((image_id, problems.take(record, "caption", "text", where)))
    else:
        found.left_out = {"annotations that are not captions": len(records)}
    return found

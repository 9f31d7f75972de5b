"""What the miniature datasets consist of. Standard library only: the Snakefile imports it."""

ANNOTATIONS = {
    "coco-train": ("annotations/captions_train2017.json",),
    "coco-karpathy": ("dataset_coco.json",),
    "flickr30k": ("dataset_flickr30k.json",),
    "seedbench": ("SEED-Bench.json",),
    "vizwiz": ("val_grounding.json",),
    "vqav2": ("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
    "cub": ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt", "bounding_boxes.txt"),
    "foodieqa": ("sivqa_tidy.json",),
    "vqav2-train": ("v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"),
}
FOLDERS = {
    "coco-train": ("train2017",),
    "coco-karpathy": ("images",),
    "flickr30k": ("images",),
    "seedbench": ("images",),
    "vizwiz": ("val", "binary_masks_png/val"),
    "vqav2": ("val2014",),
    "cub": ("images",),
    "foodieqa": ("images",),
    "vqav2-train": ("train2014",),
}


def paths_in(table: dict[str, tuple[str, ...]], folder: str) -> list[str]:
    """Paths of ANNOTATIONS or FOLDERS below the folder that holds all datasets."""
    return [f"{folder}/{dataset}/{path}" for dataset, paths in table.items() for path in paths]

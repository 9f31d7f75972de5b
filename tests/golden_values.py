"""Golden values: what each costly product held when its version was given, in a few numbers of each of its arrays.

    python tests/golden_values.py [PRODUCT...]

records them in tests/golden/<product>.json, for products and families that are new or whose version was raised in
workflow/lossmap/study/products.py. Where values differ and the version doesn't, it refuses.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from golden_products import MAKERS, reproducible

from lossmap.study import products

FOLDER = Path(__file__).parent / "golden"
# Largest difference of a number, as a share of its array's root mean square. Another processor, or another library of
# linear algebra, rounds otherwise: with the widest instructions of a processor and with its narrowest, these numbers
# differ by up to 1e-5; those of linear decoders, solutions of a system of equations, by 5e-5; those of the probe,
# differences of nearly equal outputs, by 3e-4. Training carries rounding on from step to step, so that networks may
# differ more on a third machine than the 4e-6 found so.
TOLERANCE = 1e-4
TOLERANCES = {"linear": 1e-3, "networks": 1e-3, "readers": 1e-3, "probe": 2e-3}
FREQUENCIES = (0.7, 1.3, 2.1, 2.9)  # of cosines over the places of an array: not one value can move unseen


def summarise(values: np.ndarray) -> dict:
    """An array in short. Of numbers: shape, mean, root mean square, and the sums with four cosines over their places,
    divided by the root of their count. Of text: shape and digest."""
    if values.dtype.kind == "U":
        digest = hashlib.sha256(json.dumps(values.tolist()).encode()).hexdigest()
        return {"shape": list(values.shape), "sha256": digest[:16]}
    flat = values.astype(np.float64).ravel()
    place = np.arange(len(flat))
    sums = [(flat * np.cos(frequency * place)).sum() / len(flat) ** 0.5 for frequency in FREQUENCIES]
    numbers = [flat.mean(), np.sqrt((flat**2).mean()), *sums]
    return {"shape": list(values.shape), "numbers": [float(f"{number:.8g}") for number in numbers]}


def difference(found: dict, wanted: dict) -> float:
    """Of two summaries, the largest difference of a number as a share of the wanted root mean square; infinite where
    shape or text differ, or a number is not finite."""
    if "numbers" not in wanted or found["shape"] != wanted["shape"]:
        return 0.0 if found == wanted else np.inf
    apart = np.abs(np.subtract(found["numbers"], wanted["numbers"])).max()
    return apart / max(wanted["numbers"][1], 1e-12) if np.isfinite(apart) else np.inf


def version_of(product: str, family: str | None) -> str:
    """The number of a product, and of it for a family."""
    number = str(products.product_version(product))
    return number if family is None else f"{number}.{products.family_version(product, family)}"


def cases() -> list[tuple[str, str | None]]:
    """Every product, and each family that it is made for."""
    return [(product, family) for product, (_, families) in MAKERS.items() for family in families or [None]]


def make(product: str, family: str | None) -> dict[str, dict]:
    """Summaries of the arrays of a tiny product made now."""
    maker, _ = MAKERS[product]
    with tempfile.TemporaryDirectory() as folder, reproducible():
        arrays = maker(Path(folder), *([family] if family else []))
    return {name: summarise(values) for name, values in arrays.items()}


def read(product: str) -> dict[str, dict]:
    path = FOLDER / f"{product}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def problem(product: str, family: str | None, found: dict[str, dict] | None = None) -> str | None:
    """What is wrong with a product's values, with what to do about it; None where they are those recorded."""
    name = product if family is None else f"{product} of {family}"
    entry, version = read(product).get(family or "all"), version_of(product, family)
    if entry is None:
        return f"{name}: no golden values are recorded. Record them: make golden"
    if entry["version"] != version:
        return f"{name}: its golden values are of version {entry['version']}, it is {version}. Record them: make golden"
    found, wanted = found or make(product, family), entry["values"]
    apart = {
        key: difference(found[key], wanted[key]) if key in found and key in wanted else np.inf
        for key in sorted({*found, *wanted})
    }
    other = [key for key, share in apart.items() if share > TOLERANCES.get(product, TOLERANCE)]
    if not other:
        return None
    place = "workflow/lossmap/study/products.py"
    alone = "" if family is None else ", in FAMILY_VERSIONS where it is this family's alone"
    return (
        f"{name}: {', '.join(other)} not as recorded (by up to {max(apart.values()):.1g} of their size). This changes"
        f" what the product holds: either mend the code, or raise the version in {place}{alone}, and record new values:"
        " make golden"
    )


def record(product: str) -> list[str]:
    """Record what is new of a product. Returns problems: values that differ under the same version."""
    before, after, problems = read(product), {}, []
    for _, family in (case for case in cases() if case[0] == product):
        entry, found = before.get(family or "all"), make(product, family)
        version = version_of(product, family)
        if entry is not None and entry["version"] == version:
            problems += filter(None, [problem(product, family, found)])
            after[family or "all"] = entry
        else:
            after[family or "all"] = {"version": version, "values": found}
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{product}.json").write_text(to_text(after))
    return problems


def to_text(entries: dict[str, dict]) -> str:
    """JSON with an array a line."""
    blocks = []
    for name, entry in sorted(entries.items()):
        lines = ",\n".join(f"   {json.dumps(key)}: {json.dumps(values)}" for key, values in entry["values"].items())
        blocks.append(
            f' {json.dumps(name)}: {{\n  "version": {json.dumps(entry["version"])},\n  "values": {{\n{lines}\n  }}\n }}'
        )
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    wrong = [line for product in sys.argv[1:] or MAKERS for line in record(product)]
    if wrong:
        sys.exit("\n".join(wrong))

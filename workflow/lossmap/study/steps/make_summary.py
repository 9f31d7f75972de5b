"""Captions and figures of all exhibits -> the page that opens on what the study has found."""

import base64
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from lossmap.study.captions import about_receives, findings_of, html_of
from lossmap.study.exhibit import TOPICS
from lossmap.study.specs import MakeSummary
from lossmap.study.tables import how_seen

TEMPLATE = Path(__file__).parents[1] / "summary.html"


def run(*, results: Path, page: Path, text: Path, spec: MakeSummary) -> None:
    """Put together what all exhibits have found.

    results: folder of the study, with tables/ and figures/. page: the summary, one HTML file without network; its links
    lead to the files beside it. text: the findings alone, as reStructuredText, for the first page of the report.
    """
    topics, lines = [], []
    for topic, question in TOPICS.items():
        shown = [one for one in spec.exhibits if one.topic == topic]
        if not shown:
            continue
        headlines = [one for one in shown if one.headline]
        entries = []
        for one in headlines:
            findings = findings_of((results / "tables" / f"{one.name}.rst").read_text(encoding="utf-8"))
            pictures = [_embedded(results / "figures" / f"{name}.png") for name in one.figures[:1]]
            entries.append({"exhibit": one, "findings": html_of(findings), "pictures": pictures})
            lines += [f"**{one.title}**", "", findings, ""] if findings.strip() else []
        topics.append({"question": question.partition(" ")[2], "entries": entries, "exhibits": shown})
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    seen = " ".join(filter(None, [how_seen(spec.views), about_receives(spec.sequence_alone)]))
    filled = template.render(study=spec.study, models=spec.models, topics=topics, view=seen, browser=spec.browser)
    page.write_text(filled + "\n", encoding="utf-8")
    text.write_text("\n".join([*lines, seen]) + "\n", encoding="utf-8")


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
